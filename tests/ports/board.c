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

int open_feed(void) {
    struct {
        const char *name;
        int mode;
        size_t length;
    } a = {"feed.bin", 1, 8};
    feed = call(1, &a);
    return feed >= 0;
}

int take(void *data, size_t bytes) {
    struct {
        int file;
        void *data;
        size_t bytes;
    } a = {feed, data, bytes};
    return call(6, &a) == 0;
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
