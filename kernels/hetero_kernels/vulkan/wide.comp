// Whole numbers of 64 bits as two words, the lower first; broadcast by strides of 0, which count pairs of words.
// z = f(a, b) is such a number or, of comparisons, 0 or 1; CAST_FROM and CAST_TO are between them and floats.
#version 450

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;

layout(std430, binding = 0) readonly buffer A { uint a_words[]; };
layout(std430, binding = 1) readonly buffer B { uint b_words[]; };
layout(std430, binding = 2) writeonly buffer Z { uint z_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint a_offset;
    uint b_offset;
    uint z_offset;
    uint d0; uint d1; uint d2; uint d3; uint d4; uint d5;
    uint a0; uint a1; uint a2; uint a3; uint a4; uint a5;
    uint b0; uint b1; uint b2; uint b3; uint b4; uint b5;
};

// The numbers of hetero_vulkan.ops.elementwise.BINARY, and two more.
#define ADD 0
#define SUB 1
#define MUL 2
#define MIN 5
#define MAX 6
#define EQUAL 7
#define NOT_EQUAL 8
#define LESS 9
#define LESS_EQUAL 10
#define GREATER 11
#define GREATER_EQUAL 12
#define CAST_TO 30
#define CAST_FROM 31

const float TWO_32 = 4294967296.0;

bool less_than(uvec2 a, uvec2 b) {
    return a.y == b.y ? a.x < b.x : int(a.y) < int(b.y);
}

uvec2 negated(uvec2 a) {
    return uvec2(0u - a.x, ~a.y + (a.x == 0 ? 1 : 0));
}

uvec2 result_of(uvec2 a, uvec2 b) {
    switch (OPERATION) {
    case ADD: {
        const uint low = a.x + b.x;
        return uvec2(low, a.y + b.y + (low < a.x ? 1 : 0));
    }
    case SUB:
        return uvec2(a.x - b.x, a.y - b.y - (a.x < b.x ? 1 : 0));
    case MUL: {
        uint high, low;
        umulExtended(a.x, b.x, high, low);
        return uvec2(low, high + a.x * b.y + a.y * b.x);
    }
    case MIN:
        return less_than(b, a) ? b : a;
    case MAX:
        return less_than(a, b) ? b : a;
    case EQUAL:
        return uvec2(a == b ? 1 : 0, 0);
    case NOT_EQUAL:
        return uvec2(a != b ? 1 : 0, 0);
    case LESS:
        return uvec2(less_than(a, b) ? 1 : 0, 0);
    case LESS_EQUAL:
        return uvec2(less_than(b, a) ? 0 : 1, 0);
    case GREATER:
        return uvec2(less_than(b, a) ? 1 : 0, 0);
    case GREATER_EQUAL:
        return uvec2(less_than(a, b) ? 0 : 1, 0);
    case CAST_FROM: {
        const bool negative = int(a.y) < 0;
        const uvec2 size = negative ? negated(a) : a;
        const float value = size.y == 0 ? float(size.x) : float(size.y) * TWO_32 + float(size.x);
        return uvec2(floatBitsToUint(negative ? -value : value), 0);
    }
    case CAST_TO: {
        const float value = uintBitsToFloat(a.x);
        // NaN and what is beyond: the lowest number, as of numpy on x86.
        if (!(abs(value) < 9223372036854775808.0)) {
            return uvec2(0, 0x80000000u);
        }
        const float size = floor(abs(value));
        const uint high = uint(floor(size / TWO_32));
        const uvec2 whole = uvec2(uint(size - float(high) * TWO_32), high);
        return value < 0.0 ? negated(whole) : whole;
    }
    }
    return uvec2(0);
}

void main() {
    const bool from_pairs = OPERATION != CAST_TO;
    const bool to_pairs = OPERATION <= MAX || OPERATION == CAST_TO;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint index = gl_GlobalInvocationID.x; index < count; index += step) {
        uint a = 0;
        uint b = 0;
        uint left = index;
#define AXIS(N) { const uint i = left % d##N; left /= d##N; a += i * a##N; b += i * b##N; }
        AXIS(5) AXIS(4) AXIS(3) AXIS(2) AXIS(1) AXIS(0)
        const uint at = a_offset + (from_pairs ? 2 * a : a);
        const uvec2 first = uvec2(a_words[at], from_pairs ? a_words[at + 1] : 0);
        const bool two = OPERATION < CAST_TO;
        const uvec2 second = two ? uvec2(b_words[b_offset + 2 * b], b_words[b_offset + 2 * b + 1]) : uvec2(0);
        const uvec2 made = result_of(first, second);
        if (to_pairs) {
            z_words[z_offset + 2 * index] = made.x;
            z_words[z_offset + 2 * index + 1] = made.y;
        } else {
            z_words[z_offset + index] = made.x;
        }
    }
}
