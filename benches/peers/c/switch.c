// The C peer: ucontext, as glibc has it. `switch FIGURE ITERATIONS` prints nanoseconds.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

enum { STACK_BYTES = 64 * 1024, STRIDE_BYTES = STACK_BYTES + 4096, WORDS = 32 };

struct coroutine {
    ucontext_t inside, driver;
};

static size_t word;
static int depth;

// Distinct functions, as in the Rust peers.
#define FRAME(outer, inner) \
    __attribute__((noinline)) static void outer(struct coroutine *c) { inner(c); __asm__ volatile("" ::: "memory"); }

static inline void suspend(struct coroutine *c) { swapcontext(&c->inside, &c->driver); }
FRAME(one, suspend) FRAME(two, one) FRAME(three, two) FRAME(four, three)
FRAME(five, four) FRAME(six, five) FRAME(seven, six) FRAME(eight, seven)

static struct coroutine *starting;

static void body(void) {
    struct coroutine *c = starting;
    volatile size_t frame[WORDS] = {0};
    for (;;) {
        switch (depth) {
        case 0: suspend(c); break;
        case 2: two(c); break;
        case 8: eight(c); break;
        default: frame[word % WORDS] += word; suspend(c);
        }
    }
}

static void empty(void) {}

static void resume(struct coroutine *c) { swapcontext(&c->driver, &c->inside); }

static void prepare(struct coroutine *c, char *stack, void (*run)(void)) {
    getcontext(&c->inside);
    c->inside.uc_stack.ss_sp = stack;
    c->inside.uc_stack.ss_size = STACK_BYTES;
    c->inside.uc_link = &c->driver;
    makecontext(&c->inside, run, 0);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void shuffle(struct coroutine **items, size_t count) {
    unsigned long long state = 0x9e3779b97f4a7c15;
    for (size_t last = count - 1; last > 0; last--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        size_t other = state % (last + 1);
        struct coroutine *item = items[last];
        items[last] = items[other];
        items[other] = item;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "does not do this figure\n"), 1;
    const char *figure = argv[1], *dot = strchr(figure, '.');
    long long iterations = atoll(argv[2]);
    size_t count = 1;
    int joins = !strncmp(figure, "spawn_join.", 11);
    if (!strcmp(figure, "switch.flat") || !strcmp(figure, "switch.machine")) depth = 0;
    else if (!strcmp(figure, "switch.depth2")) depth = 2;
    else if (!strcmp(figure, "switch.depth8")) depth = 8;
    else if (!strncmp(figure, "ring", 4)) depth = 1, count = atoll(dot + 1);
    else if (joins && strcmp(dot, ".one")) count = atoll(dot + 6);
    else if (!joins) return fprintf(stderr, "does not do this figure\n"), 1;

    char *stacks = mmap(NULL, count * STRIDE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    struct coroutine *all = calloc(count, sizeof *all), **order = calloc(count, sizeof *order);
    if (stacks == MAP_FAILED || !all || !order) return perror("no memory"), 1;
    madvise(stacks, count * STRIDE_BYTES, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < count; i++) order[i] = &all[i];
    if (!strncmp(figure, "ring_shuffled", 13)) shuffle(order, count);
    for (size_t i = 0; i < count && !joins; i++) {
        prepare(&all[i], stacks + i * STRIDE_BYTES, body);
        starting = &all[i];
        resume(&all[i]);
    }
    long long start = now();
    for (long long round = 0; round < iterations; round++) {
        for (size_t i = 0; i < count && joins; i++) prepare(order[i], stacks + i * STRIDE_BYTES, empty);
        word = round;
        for (size_t i = 0; i < count; i++) resume(order[i]);
    }
    printf("%lld\n", now() - start);
}
