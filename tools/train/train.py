# SPDX-License-Identifier: MIT
"""Trains one stage with single-threaded workers that share the weights.

A step is `--batch` samples; free workers take the next sample, then all wait,
each updates its part of the weights. Sample i of the stage is a function of i
alone: a run that resumes sees the data it would have seen.
"""
import argparse
import json
import os
import signal
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.multiprocessing as mp

import losses
import optim
import pair
import store
from model import Linear, TinyLlava

STAGE_OFFSET = {"reading": 0, "strips": 1 << 40, "full": 2 << 40}
CLIP = 2.0
PROJECTOR_SCALE = 0.2  # where only the projector of the vision part learns


def read_options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--work", required=True, help="folder of checkpoints and log")
    p.add_argument("--stage", choices=list(STAGE_OFFSET), default="full")
    p.add_argument("--init", help="GGUF pair (folder or model file) or checkpoint to start from")
    p.add_argument("--tokenizer", help="tokenizer JSON, when not started from a pair")
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--decay", type=float, default=0.3, help="last part of the steps, rate to 0")
    p.add_argument("--warm-up", type=int, default=60, help="steps")
    p.add_argument("--deadline", type=float, help="UNIX time by which the decay has ended")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--tokens", type=int, default=448, help="text tokens per image")
    p.add_argument("--conversations", type=float, default=0.5)
    p.add_argument("--muon-rate", type=float, default=0.014)
    p.add_argument("--adam-rate", type=float, default=7e-4)
    p.add_argument("--vision-scale", type=float, default=0.2, help="0: only the projector learns")
    p.add_argument("--reading", type=float, default=0.3, help="weight of the reading loss")
    p.add_argument("--guide", type=float, default=0.3, help="weight of the guide loss")
    p.add_argument("--average", type=float, default=0.98, help="of the averaged weights")
    p.add_argument("--first-sample", type=int, default=0)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--products", choices=("auto", "f32", "bf16"), default="auto",
                   help="type of matrix products; auto: bf16 where the processor has tiles for it")
    p.add_argument("--pause-file", help="sleeps between steps while this file exists")
    p.add_argument("--checkpoint-seconds", type=float, default=180)
    return p.parse_args()


def rate_scale(options, step, began):
    """Warm-up, constant, linear decay by steps or, with a deadline, by the later of the two."""
    done = step / options.steps
    if options.deadline:
        done = max(done, (time.time() - began) / (options.deadline - began))
    return min(1.0, (step + 1) / options.warm_up, max(0.0, (1 - done) / options.decay))


def split_work(model, workers):
    """Names of the parameters that each worker updates, of about equal cost."""
    cost = {}
    for name, p in model.named_parameters():
        hidden = optim.is_hidden_matrix(name, p)
        cost[name] = p.numel() * (30 * min(p.shape) if hidden else 10)
    parts, load = [[] for _ in range(workers)], [0] * workers
    for name in sorted(cost, key=cost.get, reverse=True):
        k = load.index(min(load))
        parts[k].append(name)
        load[k] += cost[name]
    return parts


class Worker:
    """One process: takes samples, then updates its share of the weights."""

    def __init__(self, rank, options, model, text, flat, shared):
        self.rank, self.options, self.model, self.text = rank, options, model, text
        self.flat, self.shared = flat, shared
        self.places = store.places(model)
        store.bind(model, flat["weights"], shared.grads[rank])
        self.mine = split_work(model, options.workers)[rank]

    def learns(self, name):
        if self.options.stage == "reading":
            return not name.startswith("decoder")
        if not self.options.vision_scale and name.startswith("vision"):
            return "project" in name
        return True

    def share_of_rate(self, name):
        if self.options.stage == "reading" or not name.startswith("vision"):
            return 1.0
        return self.options.vision_scale or PROJECTOR_SCALE

    def run_samples(self, step):
        o, shared = self.options, self.shared
        while True:
            with shared.ticket.get_lock():
                i = shared.ticket.value
                shared.ticket.value += 1
            if i >= o.batch:
                return
            index = STAGE_OFFSET[o.stage] + o.first_sample + step * o.batch + i
            loss, notes = losses.sample_loss(self.model, self.text, o, index)
            loss.backward()
            shared.notes.put(notes)

    def gather(self):
        """Averages the gradients of my weights into the first buffer; adds to the norm."""
        total = 0.0
        for name in self.mine:
            at = self.places[name]
            g = self.shared.grads[0][at]
            for other in self.shared.grads[1:]:
                g.add_(other[at])
            g.div_(self.options.batch)
            total += g.square().sum().item()
        self.shared.norms[self.rank] = total

    def update(self, step):
        norm = sum(self.shared.norms) ** 0.5
        clip = min(1.0, CLIP / (norm + 1e-6))
        o, scale = self.options, self.shared.scale.value
        named = dict(self.model.named_parameters())
        for name in self.mine:
            at, p = self.places[name], named[name].data
            buffers = (self.shared.grads[0], self.flat["first"], self.flat["second"])
            g, m, v = (t[at].view_as(p) for t in buffers)
            if self.learns(name):
                g.mul_(clip)
                if optim.is_hidden_matrix(name, p):
                    rate = o.muon_rate * scale * self.share_of_rate(name)
                    optim.muon_step(p, g, m, rate, 0.01)
                else:
                    optim.adam_step(p, g, m, v, o.adam_rate * scale, step + 1)
            weight = min(o.average, (step + 1) / (step + 10))
            self.flat["average"][at].lerp_(p.reshape(-1), 1 - weight)
            for grads in self.shared.grads:
                grads[at].zero_()

    def step(self, step):
        self.run_samples(step)
        self.shared.barrier.wait()
        self.gather()
        self.shared.barrier.wait()
        self.update(step)
        self.shared.barrier.wait()


class Shared:
    """What the workers exchange."""

    def __init__(self, workers, size):
        self.grads = [torch.zeros(size).share_memory_() for _ in range(workers)]
        self.barrier, self.ticket = mp.Barrier(workers), mp.Value("l", 0)
        self.scale, self.stop = mp.Value("d", 0.0), mp.Value("b", 0)
        self.norms, self.notes = mp.Array("d", workers), mp.SimpleQueue()


def worker_loop(rank, options, model, text, flat, shared, step):
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = Worker(rank, options, model, text, flat, shared)
    while True:
        shared.barrier.wait()
        if shared.stop.value:
            return
        worker.step(step)
        step += 1


def start_weights(options):
    """-> model, Text"""
    if options.init and not options.init.endswith(".pt"):
        return pair.load_pair(options.init)
    from tokenizers import Tokenizer

    from tokenizer import Text

    model, text = TinyLlava(), Text(Tokenizer.from_file(options.tokenizer))
    if options.init:
        store.load_into(model, options.init)
    return model, text


def main():
    options = read_options()
    os.makedirs(options.work, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    tiles = options.products == "auto" and torch.cpu._is_amx_tile_supported()
    if tiles or options.products == "bf16":
        Linear.products = torch.bfloat16
    model, text = start_weights(options)
    flat = store.flat_state(model)
    state = store.resume(options.work, flat) or {"step": 0, "began": time.time()}
    shared = Shared(options.workers, flat["weights"].numel())
    context = mp.get_context("fork")
    given = (options, model, text, flat, shared)
    others = [
        context.Process(target=worker_loop, daemon=True, args=(k, *given, state["step"]))
        for k in range(1, options.workers)
    ]
    for other in others:
        other.start()
    worker = Worker(0, *given)
    asked_to_stop = []
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: asked_to_stop.append(1))
    saved = time.time()
    with open(os.path.join(options.work, "log.jsonl"), "a") as log:
        while state["step"] < options.steps and not asked_to_stop:
            while options.pause_file and os.path.exists(options.pause_file) and not asked_to_stop:
                time.sleep(2)
            scale = rate_scale(options, state["step"], state["began"])
            if scale <= 0:
                break
            began = time.time()
            shared.scale.value, shared.ticket.value = scale, 0
            shared.barrier.wait()
            worker.step(state["step"])
            state["step"] += 1
            notes = [shared.notes.get() for _ in range(options.batch)]
            line = {k: sum(n[k] for n in notes) / len(notes) for k in notes[0]}
            line.update(scale=scale, norm=sum(shared.norms) ** 0.5, seconds=time.time() - began)
            line = {"step": state["step"], **{k: round(v, 4) for k, v in line.items()}}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if time.time() - saved > options.checkpoint_seconds:
                store.save(options.work, flat, state)
                saved = time.time()
    store.save(options.work, flat, state)
    shared.stop.value = 1
    shared.barrier.wait()
    for other in others:
        other.join(10)
    if asked_to_stop:
        raise SystemExit(3)


if __name__ == "__main__":
    main()
