/* calc EXPRESSION...  or one expression per line on standard input. */
#include <stdio.h>
#include <string.h>

#include "calc.h"

static int run(const char *text)
{
    struct calc_result result = calculate(text);
    if (result.status == CALC_OK) {
        printf("%.12g\n", result.value);
        return 0;
    }
    fprintf(stderr, "calc: %s at column %zu\n", calc_status_text(result.status), result.at + 1);
    return 1;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run(argv[i]);
    if (argc < 2) {
        char line[4096];
        while (fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\n")] = '\0';
            failed |= run(line);
        }
    }
    return failed;
}
