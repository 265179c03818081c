/* A calculator of integer and decimal expressions: text -> tokens -> value. */
#ifndef CALC_H
#define CALC_H

#include <stddef.h>

enum token_kind { TOKEN_NUMBER, TOKEN_OPERATOR, TOKEN_END, TOKEN_BAD };

struct token {
    enum token_kind kind;
    char operator;   /* one of + - * / % ^ ( ) when the kind is TOKEN_OPERATOR */
    double number;   /* when the kind is TOKEN_NUMBER */
    size_t at;       /* offset of the first byte, from 0 */
};

struct lexer {
    const char *text;
    size_t at;
};

struct token next_token(struct lexer *lexer);

enum calc_status { CALC_OK, CALC_SYNTAX, CALC_DIVISION, CALC_DEEP };

struct calc_result {
    enum calc_status status;
    double value;    /* when the status is CALC_OK */
    size_t at;       /* offset of the fault otherwise */
};

struct calc_result calculate(const char *text);

const char *calc_status_text(enum calc_status status);

#endif
