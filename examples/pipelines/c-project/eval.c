#include <math.h>

#include "calc.h"

/* Deepest nesting of parentheses, signs and powers; each level is one turn of the C stack. */
#define DEPTH_MAX 200

struct parser {
    struct lexer lexer;
    struct token token;
    enum calc_status status;
    size_t fault_at;
    int depth;
};

static double sum(struct parser *parser);

static void fail(struct parser *parser, enum calc_status status, size_t at)
{
    if (parser->status == CALC_OK) {
        parser->status = status;
        parser->fault_at = at;
    }
}

static void advance(struct parser *parser)
{
    parser->token = next_token(&parser->lexer);
}

static int at_operator(const struct parser *parser, char operator)
{
    return parser->token.kind == TOKEN_OPERATOR && parser->token.operator == operator;
}

/* number | "(" sum ")" */
static double atom(struct parser *parser)
{
    double value = 0;
    if (parser->token.kind == TOKEN_NUMBER) {
        value = parser->token.number;
        advance(parser);
    } else if (at_operator(parser, '(')) {
        advance(parser);
        value = sum(parser);
        if (at_operator(parser, ')'))
            advance(parser);
        else
            fail(parser, CALC_SYNTAX, parser->token.at);
    } else {
        fail(parser, CALC_SYNTAX, parser->token.at);
    }
    return value;
}

/* ("-" | "+") unary | atom ["^" unary]; so -2^2 is -4 and 2^3^2 is 2^9 */
static double unary(struct parser *parser)
{
    double value = 0;
    if (++parser->depth > DEPTH_MAX) {
        fail(parser, CALC_DEEP, parser->token.at);
    } else if (at_operator(parser, '-')) {
        advance(parser);
        value = -unary(parser);
    } else if (at_operator(parser, '+')) {
        advance(parser);
        value = unary(parser);
    } else {
        value = atom(parser);
        if (parser->status == CALC_OK && at_operator(parser, '^')) {
            advance(parser);
            value = pow(value, unary(parser));
        }
    }
    parser->depth--;
    return value;
}

/* unary (("*" | "/" | "%") unary)* */
static double product(struct parser *parser)
{
    double value = unary(parser);
    while (parser->status == CALC_OK
           && (at_operator(parser, '*') || at_operator(parser, '/') || at_operator(parser, '%'))) {
        struct token operator = parser->token;
        advance(parser);
        double right = unary(parser);
        if (operator.operator == '*') {
            value *= right;
        } else if (right == 0) {
            fail(parser, CALC_DIVISION, operator.at);
        } else {
            value = operator.operator == '/' ? value / right : fmod(value, right);
        }
    }
    return value;
}

/* product (("+" | "-") product)* */
static double sum(struct parser *parser)
{
    double value = product(parser);
    while (parser->status == CALC_OK && (at_operator(parser, '+') || at_operator(parser, '-'))) {
        int minus = at_operator(parser, '-');
        advance(parser);
        double right = product(parser);
        value = minus ? value - right : value + right;
    }
    return value;
}

struct calc_result calculate(const char *text)
{
    struct parser parser = { .lexer = { .text = text } };
    advance(&parser);
    double value = sum(&parser);
    if (parser.token.kind != TOKEN_END)
        fail(&parser, CALC_SYNTAX, parser.token.at);
    return (struct calc_result){ .status = parser.status, .value = value, .at = parser.fault_at };
}

const char *calc_status_text(enum calc_status status)
{
    switch (status) {
    case CALC_OK: return "ok";
    case CALC_SYNTAX: return "syntax error";
    case CALC_DIVISION: return "division by zero";
    case CALC_DEEP: return "nested too deeply";
    }
    return "unknown";
}
