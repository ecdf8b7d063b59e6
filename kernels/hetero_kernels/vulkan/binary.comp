// z = f(a, b), or a where c else b, element by element, broadcast by strides of 0. An invocation makes a word of z.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"
#include "numbers.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;
layout(constant_id = 2) const uint A_TYPE = 0;
layout(constant_id = 3) const uint B_TYPE = 0;
layout(constant_id = 4) const uint TO = 0;
// Axes that are there, the last ones: each further one costs a division.
layout(constant_id = 5) const uint RANK = 6;

layout(std430, binding = 0) readonly buffer A { uint a_words[]; };
layout(std430, binding = 1) readonly buffer B { uint b_words[]; };
layout(std430, binding = 2) readonly buffer C { uint c_words[]; };
layout(std430, binding = 3) writeonly buffer Z { uint z_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint a_offset;
    uint b_offset;
    uint c_offset;
    uint z_offset;
    uint d0; uint d1; uint d2; uint d3; uint d4; uint d5;
    uint a0; uint a1; uint a2; uint a3; uint a4; uint a5;
    uint b0; uint b1; uint b2; uint b3; uint b4; uint b5;
    uint c0; uint c1; uint c2; uint c3; uint c4; uint c5;
};

#define WHERE 20

// Of a division: of the divisor's sign, or of the dividend's.
float remainder_of(float a, float b, bool as_divisor) {
    if (a != a || b != b || b == 0.0 || abs(a) == INFINITE) {
        return NOT_A_NUMBER;
    }
    float left = abs(a);
    if (abs(b) != INFINITE && left >= abs(b)) {
        // By whole numbers, some bits of the quotient after the other: one of floats is not exact.
        const uvec2 bits = uvec2(floatBitsToUint(left), floatBitsToUint(abs(b)));
        const uvec2 exponents = max(bits >> 23, uvec2(1));
        const uvec2 digits = (bits & 0x7fffffu) | mix(uvec2(0), uvec2(0x800000u), greaterThanEqual(bits, uvec2(0x800000u)));
        uint rest = digits.x % digits.y;
        for (uint more = exponents.x - exponents.y; more > 0 && rest > 0;) {
            const uint some = min(more, 8);
            rest = (rest << some) % digits.y;
            more -= some;
        }
        left = ldexp(float(rest), int(exponents.y) - 150);
    }
    left = a < 0.0 ? -left : left;
    return as_divisor && left != 0.0 && (left < 0.0) != (b < 0.0) ? left + b : left;
}

float of_floats(float a, float b) {
    switch (OPERATION) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    case 3: return a / b;
    case 4: return power_of(a, b);
    case 5: return least_of(a, b);
    case 6: return greatest_of(a, b);
    case 7: return a == b ? 1.0 : 0.0;
    case 8: return a != b || a != a || b != b ? 1.0 : 0.0;
    case 9: return a < b ? 1.0 : 0.0;
    case 10: return a <= b ? 1.0 : 0.0;
    case 11: return a > b ? 1.0 : 0.0;
    case 12: return a >= b ? 1.0 : 0.0;
    case 13: return a != 0.0 && b != 0.0 ? 1.0 : 0.0;
    case 14: return a != 0.0 || b != 0.0 ? 1.0 : 0.0;
    case 15: return (a != 0.0) != (b != 0.0) ? 1.0 : 0.0;
    case 16: return remainder_of(a, b, true);
    case 17: return remainder_of(a, b, false);
    }
    return 0.0;
}

int of_ints(int a, int b) {
    switch (OPERATION) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    // By 0: numpy's answer, without its warning.
    case 3: return b == 0 ? 0 : b == -1 ? -a : a / b;
    case 5: return min(a, b);
    case 6: return max(a, b);
    case 7: return int(a == b);
    case 8: return int(a != b);
    case 9: return int(a < b);
    case 10: return int(a <= b);
    case 11: return int(a > b);
    case 12: return int(a >= b);
    case 13: return int(a != 0 && b != 0);
    case 14: return int(a != 0 || b != 0);
    case 15: return int((a != 0) != (b != 0));
    case 16: case 17: {
        if (b == 0 || b == -1) {
            return 0;
        }
        const int left = a - a / b * b;
        return OPERATION == 16 && left != 0 && (left < 0) != (b < 0) ? left + b : left;
    }
    }
    return 0;
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
                uint a = a_offset;
                uint b = b_offset;
                uint c = c_offset;
                uint left = index;
#define AXIS(N)                                                          \
    if (RANK + N >= 6) {                                                 \
        const uint outer = RANK + N == 6 ? 0 : left / d##N;              \
        const uint i = left - outer * d##N;                              \
        left = outer;                                                    \
        a += i * a##N;                                                   \
        b += i * b##N;                                                   \
        c += i * c##N;                                                   \
    }
                AXIS(5) AXIS(4) AXIS(3) AXIS(2) AXIS(1) AXIS(0)
                const uint a_word = a_words[a / per_word(A_TYPE)];
                const uint b_word = b_words[b / per_word(B_TYPE)];
                if (OPERATION == WHERE) {
                    made |= c_words[c] != 0 ? moved(A_TYPE, TO, a_word, a, index) : moved(B_TYPE, TO, b_word, b, index);
                } else if (A_TYPE == I32 && B_TYPE == I32 && OPERATION != 4) {
                    const int result = of_ints(int(a_word), int(b_word));
                    made |= TO == I32 ? uint(result) : to_word(TO, float(result), index);
                } else {
                    made |= to_word(TO, of_floats(from_word(A_TYPE, a_word, a), from_word(B_TYPE, b_word, b)), index);
                }
            }
        }
        z_words[z_offset / each + w] = made;
    }
}
