/* Start-up, vectors and semihosting of a bare Cortex-M. The stack is painted, so that the program's
   end can tell how deep it went. */
#include "board.h"

#include <string.h>

extern uint32_t _estack, _sidata, _sdata, _edata, _sbss, _ebss;
int main(void);
void Reset_Handler(void);
void Fault(void);
static int feed;

static int call(int op, const void *argument) {
    register int r0 __asm("r0") = op;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory", "lr");
    return r0;
}

void say(const char *text) { call(4, text); }

static int open_file(const char *name, int mode, size_t length) {
    struct {
        const char *name;
        int mode;
        size_t length;
    } a = {name, mode, length};
    return call(1, &a);
}

static int transfer(int op, int file, const void *data, size_t bytes) {
    struct {
        int file;
        const void *data;
        size_t bytes;
    } a = {file, data, bytes};
    return call(op, &a);
}

int open_feed(void) { return (feed = open_file("feed.bin", 1, 8)) >= 0; }

int take(void *data, size_t bytes) { return transfer(6, feed, data, bytes) == 0; }

static int at_device(size_t offset) {
    static int device = -1;
    struct {
        int file;
        size_t offset;
    } a;
    if (device < 0) device = open_file("device.bin", 7, 10);
    a.file = device, a.offset = offset;
    return call(10, &a) ? -1 : device;
}

int put(void *user, size_t offset, const void *data, size_t bytes) {
    (void)user;
    return transfer(5, at_device(offset), data, bytes);
}

int get(void *user, size_t offset, void *data, size_t bytes) {
    (void)user;
    return transfer(6, at_device(offset), data, bytes);
}

#define SYST ((volatile uint32_t *)0xE000E010)
uint32_t ticks(void) { return SYST[2]; }

static void leave(int code) {
    struct {
        uint32_t reason, code;
    } a = {0x20026u, (uint32_t)code};
    call(0x20, &a);
    for (;;) {
    }
}

static void say_number(const char *name, uint32_t value) {
    char digits[10];
    int i;
    for (i = 7; i >= 0; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15u];
    digits[8] = '\n';
    digits[9] = 0;
    say(name);
    say(digits);
}

void Reset_Handler(void) {
    uint32_t *p;
    int code;
    memcpy(&_sdata, &_sidata, (size_t)((char *)&_edata - (char *)&_sdata));
    memset(&_sbss, 0, (size_t)((char *)&_ebss - (char *)&_sbss));
    for (p = &_ebss; p < (uint32_t *)__builtin_frame_address(0) - 16; p++) *p = 0xA5A5A5A5u;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
    __asm volatile("dsb\n isb");
#endif
    SYST[1] = 0xffffffu;
    SYST[2] = 0u;
    SYST[0] = 5u;
    code = main();
    for (p = &_ebss; *p == 0xA5A5A5A5u; p++) {
    }
    say_number("stack ", (uint32_t)((char *)&_estack - (char *)p));
    leave(code);
}

void Fault(void) {
    say("FAULT\n");
    leave(99);
}

typedef union {
    const uint32_t *stack;
    void (*handler)(void);
} vector;
__attribute__((section(".isr_vector"), used)) const vector vectors[16] = {
    {.stack = &_estack}, {.handler = Reset_Handler}, {.handler = Fault}, {.handler = Fault},
    {.handler = Fault},  {.handler = Fault},         {.handler = Fault}, {0},
    {0},                 {0},                        {0},                {.handler = Fault},
    {.handler = Fault},  {0},                        {.handler = Fault}, {.handler = Fault}};
