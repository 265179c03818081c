#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calc.h"

static int checks;
static int failures;

static void check_value(const char *text, double expected)
{
    struct calc_result result = calculate(text);
    checks++;
    if (result.status != CALC_OK || fabs(result.value - expected) > 1e-9) {
        failures++;
        printf("FAIL %s: %s %g, expected %g\n", text, calc_status_text(result.status), result.value, expected);
    }
}

static void check_fault(const char *text, enum calc_status status, size_t at)
{
    struct calc_result result = calculate(text);
    checks++;
    if (result.status != status || result.at != at) {
        failures++;
        printf("FAIL %s: %s at %zu\n", text, calc_status_text(result.status), result.at);
    }
}

static void check_tokens(const char *text, const char *expected)
{
    struct lexer lexer = { .text = text };
    char kinds[64] = "";
    for (size_t count = 0; count < sizeof kinds - 1; count++) {
        struct token token = next_token(&lexer);
        if (token.kind == TOKEN_END)
            break;
        kinds[count] = token.kind == TOKEN_NUMBER ? 'n' : token.kind == TOKEN_OPERATOR ? token.operator : '?';
        if (token.kind == TOKEN_BAD)
            break;
    }
    checks++;
    if (strcmp(kinds, expected) != 0) {
        failures++;
        printf("FAIL tokens of %s: %s, expected %s\n", text, kinds, expected);
    }
}

int main(void)
{
    check_tokens("1+2.5 * (3)", "n+n*(n)");
    check_tokens("0x10", "n?");
    check_tokens(" \t", "");
    check_value("1 + 2 * 3", 7);
    check_value("(1 + 2) * 3", 9);
    check_value("10 - 4 - 3", 3);
    check_value("2 ^ 3 ^ 2", 512);
    check_value("-2 ^ 2", -4);
    check_value("2 ^ -1", 0.5);
    check_value("--5", 5);
    check_value("7 % 4 / 2", 1.5);
    check_value(".5 + 0.25", 0.75);
    check_fault("", CALC_SYNTAX, 0);
    check_fault("1 +", CALC_SYNTAX, 3);
    check_fault("1 2", CALC_SYNTAX, 2);
    check_fault("(1", CALC_SYNTAX, 2);
    check_fault("1 / (2 - 2)", CALC_DIVISION, 2);
    check_fault("inf", CALC_SYNTAX, 0);

    char deep[1001];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    check_fault(deep, CALC_DEEP, 200);

    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
