#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "calc.h"

static int starts_number(const char *text)
{
    return isdigit((unsigned char)text[0]) || (text[0] == '.' && isdigit((unsigned char)text[1]));
}

/* The bytes of digits[.digits]; strtod alone would also take "0x1p3", "inf" and "1e9". */
static size_t number_length(const char *text)
{
    size_t length = 0;
    while (isdigit((unsigned char)text[length]))
        length++;
    if (text[length] == '.')
        for (length++; isdigit((unsigned char)text[length]); length++)
            ;
    return length;
}

struct token next_token(struct lexer *lexer)
{
    while (isspace((unsigned char)lexer->text[lexer->at]))
        lexer->at++;

    const char *text = lexer->text + lexer->at;
    struct token token = { .kind = TOKEN_BAD, .at = lexer->at };
    if (text[0] == '\0') {
        token.kind = TOKEN_END;
    } else if (strchr("+-*/%^()", text[0])) {
        token.kind = TOKEN_OPERATOR;
        token.operator = text[0];
        lexer->at++;
    } else if (starts_number(text)) {
        char digits[64];
        size_t length = number_length(text);
        if (length < sizeof digits) {
            memcpy(digits, text, length);
            digits[length] = '\0';
            token.kind = TOKEN_NUMBER;
            token.number = strtod(digits, NULL);
            lexer->at += length;
        }
    }
    return token;
}
