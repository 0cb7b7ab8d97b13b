/* As much of Arduino's header as the exported sketch asks for; arduino.cpp stands in for a board. */
#ifndef ARDUINO_H
#define ARDUINO_H
#include <stdint.h>

enum { A0, INPUT_PULLUP, LOW = 0, HIGH = 1 };

struct Line {
    void begin(long) {}
    void println(float value);
    void println(int value);
    int available();
    int read();
};
extern Line Serial;
void pinMode(int pin, int mode);
int digitalRead(int pin);
int analogRead(int pin);
void delay(int milliseconds);
void setup();
void loop();
#endif
