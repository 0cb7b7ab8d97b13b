/* As much of Arduino's header as the exported sketch asks for, to compile it on a host. */
#ifndef ARDUINO_H
#define ARDUINO_H
#include <stdint.h>

enum { A0, INPUT_PULLUP, LOW };

struct Line {
    void begin(long) {}
    void println(float) {}
    int available() { return 0; }
    int read() { return '0'; }
};
static Line Serial;
inline void pinMode(int, int) {}
inline int digitalRead(int) { return LOW; }
inline int analogRead(int) { return 512; }
inline void delay(int) {}
void setup();
void loop();
int main() {
    setup();
    loop();
}
#endif
