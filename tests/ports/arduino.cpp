/* A board for the exported sketch: a sensor whose waves come in two kinds, a person who says which
   while pin 2 is low, and then nobody. Prints what the sketch says in between: how many losses, how
   many errors, and how many of the last waves it took for the right kind. */
#include "Arduino.h"

#include "model.h"

#ifdef SEMIHOSTED
extern "C" {
#include "board.h"
}
#else
#include <cstdio>
static void say(const char *text) { fputs(text, stdout); }
#endif

enum { TAUGHT = 240, ASKED = 40, READINGS = TT_X_BYTES / TT_SLICE / 4 };
Line Serial;
static int wave, reading, told, losses, errors, right;
static uint32_t state = 1;

static bool taught() { return wave >= TAUGHT; }
static int kind() { return wave * 7 / 3 % 2; }

void Line::println(float) { losses++; }
void Line::println(int value) {
    if (value < 0 || !taught())
        errors++;
    else
        right += value == kind();
}
int Line::available() { return !taught() && !told; }
int Line::read() { return told = 1, '0' + kind(); }

void pinMode(int, int) {}
int digitalRead(int) { return taught() ? HIGH : LOW; }
void delay(int) {}

int analogRead(int) {
    int period = kind() ? 8 : 12, value = (reading++ + wave) % period * 900 / period;
    state = state * 1664525u + 1013904223u;
    return value + (int)(state >> 26);
}

static void say_hex(const char *name, uint32_t value) {
    char digits[] = "00000000\n";
    for (int k = 7; k >= 0; k--, value >>= 4) digits[k] = "0123456789abcdef"[value & 15u];
    say(name);
    say(digits);
}

int main() {
    setup();
    for (; wave < TAUGHT + ASKED; wave++) {
        reading = told = 0;
        loop();
        if (reading != READINGS) errors++;
    }
    say_hex("losses ", (uint32_t)losses);
    say_hex("errors ", (uint32_t)errors);
    say_hex("right ", (uint32_t)right);
    return 0;
}
