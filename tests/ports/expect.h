/* A check of a C test whose main returns the line of the first surprise. */
#ifndef EXPECT_H
#define EXPECT_H

#define EXPECT(what)                                                                               \
    do {                                                                                           \
        if (!(what)) return __LINE__;                                                              \
    } while (0)

#endif
