# SPDX-License-Identifier: MIT
"""Words, colours, fonts and random values of the generated documents."""
import os

FONT_FOLDERS = os.environ.get("KVSIEVE_FONTS", "/usr/share/fonts/truetype").split(":")
FONTS = (
    "dejavu/DejaVuSans.ttf",
    "dejavu/DejaVuSansMono.ttf",
    "dejavu/DejaVuSerif.ttf",
    "dejavu/DejaVuSansCondensed.ttf",
    "dejavu/DejaVuSans-Bold.ttf",
    "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSans-Bold.ttf",
    "liberation/LiberationSerif-Regular.ttf",
    "liberation/LiberationMono-Regular.ttf",
)
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/$%#&()@'"

FIRST_NAMES = """Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Liam Maria Nathan
Olivia Peter Quinn Rachel Samuel Tina Ursula Victor Wendy Xavier Yvonne Zoe Aaron Bella Carlos
Diana Ethan Fiona George Helen Ivan Julia Kevin Laura Martin Nora Oscar Paula Robert Sarah Thomas
Uma Vera William""".split()
LAST_NAMES = """Anderson Baker Carter Dawson Evans Fisher Garcia Harris Iverson Johnson King Lopez
Miller Nelson Owens Parker Quigley Roberts Smith Turner Underwood Vargas Walker Xu Young Zimmer
Adams Brooks Clark Duncan Ellis Foster Green Howard Irwin Jensen Kelly Lewis Morris Norton Olsen
Price Reed Stone Taylor Vance White York""".split()
CITIES = """Paris London Berlin Madrid Rome Vienna Prague Dublin Lisbon Oslo Helsinki Warsaw Athens
Cairo Delhi Tokyo Seoul Sydney Toronto Boston Chicago Denver Dallas Seattle Miami Austin Geneva
Zurich Munich Milan Turin Lyon Porto Bergen Krakow Quebec Havana Lima Bogota Nairobi""".split()
ITEMS = """Apple Bread Butter Cheese Coffee Cookie Cream Eggs Fish Flour Garlic Grapes Honey Juice
Lamp Lemon Mango Milk Nuts Onion Orange Paper Pasta Peach Pear Pen Pepper Pizza Plate Potato Rice
Salad Salt Soap Soup Sugar Tea Tomato Towel Vinegar Water Yogurt Bolt Cable Chair Clock Desk Drill
Glue Hammer Ink Jacket Knife Ladder Mirror Nail Paint Phone Rope Saw Screw Shirt Shoes Tape
Wire""".split()
DOCUMENT_TITLES = """Invoice,Receipt,Order Form,Member Card,Travel Pass,Lab Report,Work Order,
Packing List,Visitor Badge,Exam Result,Bank Notice,Rental Contract,Event Ticket,Delivery Note,
Price List,Library Card,Staff Record,Repair Ticket,Flight Plan,Tax Form""".split(",")
DOCUMENT_TITLES = [title.strip() for title in DOCUMENT_TITLES]
CHART_TITLES = "Sales Visitors Output Rainfall Profit Energy Traffic Votes".split()
STATES = "Paid Open Late Closed Shipped Pending Approved Rejected".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 80, 200),
    "yellow": (235, 205, 40),
    "orange": (240, 140, 30),
    "purple": (140, 60, 170),
    "black": (25, 25, 25),
    "gray": (135, 135, 135),
    "pink": (240, 140, 180),
    "brown": (125, 80, 40),
}
COLOUR_NAMES = list(COLOURS)
TITLE_COLOURS = ("black", "blue", "red", "green", "purple", "brown")
SHAPE_NAMES = ("circle", "square", "triangle", "diamond", "cross")
PAPERS = (
    (255, 255, 255),
    (250, 248, 240),
    (240, 245, 250),
    (245, 240, 245),
    (235, 240, 235),
    (255, 250, 225),
    (225, 230, 235),
)
INKS = ((0, 0, 0), (0, 0, 0), (20, 20, 60), (50, 20, 20), (10, 50, 30), (60, 60, 60))
SYLLABLES = """ba be bi bo da de do fa fi ga go ha he ka ke ki ko la le li lo lu ma me mi mo na ne
ni no pa pe po ra re ri ro sa se si so ta te ti to va ve vi wa zo""".split()


def digits(r, n):
    return "".join(r.choice("0123456789") for _ in range(n))


def capitals(r, n):
    return "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(n))


def made_up(r):
    """A pronounceable word that is in no list."""
    word = "".join(r.choice(SYLLABLES) for _ in range(r.randint(2, 3)))
    if r.random() < 0.35:
        word += r.choice("nrstlkm")
    return word.capitalize()


def full_name(r):
    return f"{r.choice(FIRST_NAMES)} {r.choice(LAST_NAMES)}"


def money(r):
    return f"${r.randint(1, r.choice((9, 99, 999)))}.{r.randint(0, 99):02d}"


def date(r):
    year, month, day = 2000 + r.randint(10, 29), r.randint(1, 12), r.randint(1, 28)
    return f"{year}-{month:02d}-{day:02d}" if r.random() < 0.6 else f"{day:02d}/{month:02d}/{year}"


def city(r):
    return r.choice(CITIES)


FIELDS = {
    "Name": full_name,
    "Manager": full_name,
    "Client": full_name,
    "Doctor": full_name,
    "Date": date,
    "Total": money,
    "Tax": money,
    "Balance": money,
    "City": city,
    "From": city,
    "To": city,
    "Project": made_up,
    "Team": made_up,
    "Key": made_up,
    "Phone": lambda r: f"{digits(r, 3)}-{digits(r, 4)}",
    "Code": lambda r: f"{capitals(r, 2)}-{digits(r, r.randint(3, 5))}",
    "Order": lambda r: digits(r, r.randint(4, 6)),
    "Time": lambda r: f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}",
    "Weight": lambda r: f"{r.randint(1, 99)}.{r.randint(0, 9)} kg",
    "Discount": lambda r: f"{r.randint(1, 95)}%",
    "Seat": lambda r: f"{r.randint(1, 60)}{r.choice('ABCDEF')}",
    "Room": lambda r: r.choice("ABCDEFGH") + digits(r, r.randint(2, 3)),
    "Gate": lambda r: f"{r.choice('ABCDEFGH')}{r.randint(1, 40)}",
    "Flight": lambda r: capitals(r, 2) + digits(r, r.randint(3, 4)),
    "Serial": lambda r: capitals(r, 3) + digits(r, 4),
    "Zip": lambda r: digits(r, 5),
    "Age": lambda r: str(r.randint(18, 90)),
    "Quantity": lambda r: str(r.randint(1, 200)),
    "Score": lambda r: f"{r.randint(0, 100)}/100",
    "Status": lambda r: r.choice(STATES),
    "Product": lambda r: r.choice(ITEMS),
    "Street": lambda r: f"{r.randint(1, 199)} {made_up(r)} St",
}
FIELD_NAMES = list(FIELDS)


def any_word(r):
    """One word or value for a page of mixed text."""
    k = r.random()
    for limit, draw in (
        (0.25, made_up),
        (0.40, lambda r: digits(r, r.randint(1, 6))),
        (0.50, lambda r: capitals(r, r.randint(1, 4))),
        (0.60, lambda r: r.choice(ITEMS)),
        (0.68, lambda r: r.choice(FIRST_NAMES)),
        (0.76, lambda r: r.choice(LAST_NAMES)),
        (0.82, lambda r: r.choice(FIELD_NAMES) + ":"),
    ):
        if k < limit:
            return draw(r)
    return FIELDS[r.choice(FIELD_NAMES)](r)
