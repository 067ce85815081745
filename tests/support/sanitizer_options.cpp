// SPDX-License-Identifier: MIT
// What the sanitizers' runtimes take as their defaults in our test programs; without a sanitizer nobody calls this.

extern "C" {
const char * __ubsan_default_options();
const char * __tsan_default_options();
const char * __ubsan_default_options() {
    return "print_stacktrace=1";
}
const char * __tsan_default_options() {
    return "halt_on_error=1";
}
}
