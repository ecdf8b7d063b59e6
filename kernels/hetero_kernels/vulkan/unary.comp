// y = f(x), element by element; an invocation makes a word of y.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"
#include "activations.glsl"
#include "numbers.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;
layout(constant_id = 2) const uint FROM = 0;
layout(constant_id = 3) const uint TO = 0;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint x_offset;
    uint y_offset;
    float first;
    float second;
};

float result_of(float x) {
    switch (OPERATION) {
    case 1: case 2: case 3: case 4: case 5: case 6:
        return activated(OPERATION, x);
    case 7:
        return x != x ? x : error_function(x);
    case 8:
        return exp_of(x);
    case 9:
        return log_of(x);
    case 10:
        return sqrt_of(x);
    case 11:
        return x >= 0.0 ? x : x * first;
    case 12:
        return least_of(greatest_of(x, first), second);
    case 13:
        return -x;
    case 14:
        return abs(x);
    case 15:
        return 1.0 / x;
    case 16:
        return floor(x);
    case 17:
        return ceil(x);
    case 18:
        return roundEven(x);
    case 19:
        return x != x ? x : sign(x);
    case 20:
        return sin(x);
    case 21:
        return cos(x);
    case 22:
        return x == 0.0 ? 1.0 : 0.0;
    case 23:
        return x != x ? 1.0 : 0.0;
    case 24:
        return x != x ? x : clamp(first * x + second, 0.0, 1.0);
    case 25:
        return x != x ? x : weighted(x, clamp(x / 6.0 + 0.5, 0.0, 1.0));
    case 26: {
        const float e = exp_of(-abs(x));
        return x != x ? x : max(x, 0.0) + (e < 0.41 ? log_beside_one(e) : log_of(1.0 + e));
    }
    case 27:
        return x >= 0.0 || x != x ? x : first * (exp_of(x) - 1.0);
    case 28:
        return x * first + second;
    }
    return x;
}

void main() {
    const uint each = per_word(TO);
    const uint words = (count + each - 1) / each;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint w = gl_GlobalInvocationID.x; w < words; w += step) {
        uint made = 0;
        for (uint e = 0; e < each; e++) {
            const uint index = w * each + e;
            if (index < count) {
                const uint at = x_offset + index;
                const uint word = x_words[at / per_word(FROM)];
                if (OPERATION == 0) {
                    made |= moved(FROM, TO, word, at, index);
                } else if (FROM == I32 && TO == I32 && (OPERATION == 29 || OPERATION == 30)) {
                    // The lower bits, with their sign or without.
                    made = OPERATION == 29 ? uint(bitfieldExtract(int(word), 0, int(first)))
                                           : bitfieldExtract(word, 0, int(first));
                } else if (FROM == I32 && TO == I32 && (OPERATION == 13 || OPERATION == 14 || OPERATION == 22)) {
                    const int whole = int(word);
                    made = uint(OPERATION == 13 ? -whole : OPERATION == 14 ? abs(whole) : int(whole == 0));
                } else {
                    made |= to_word(TO, result_of(from_word(FROM, word, at)), index);
                }
            }
        }
        y_words[y_offset / each + w] = made;
    }
}
