/* A bare Cortex-M under an emulator: what a test program needs of the host, by semihosting. */
#ifndef BOARD_H
#define BOARD_H
#include <stddef.h>
#include <stdint.h>

int open_feed(void);
int take(void *data, size_t bytes);
void say(const char *text);
int put(void *user, size_t offset, const void *data, size_t bytes); /* a file as block device */
int get(void *user, size_t offset, void *data, size_t bytes);
uint32_t ticks(void); /* SysTick, counting down, 24 bits */

#endif
