// The places of the k most extreme elements of each line, in order: an element's rank is the number of those before it, which
// are the more extreme ones and equal ones in front of it. Places are pairs of words, whole numbers of 64 bits.
#version 450

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool LARGEST = true;
layout(constant_id = 2) const bool INTEGERS = false;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint length;
    uint inner;
    uint k;
    uint x_offset;
    uint y_offset;
};

// In an order of whole numbers, in which NaN is above all else.
int key_of(uint word) {
    if (INTEGERS) {
        return int(word);
    }
    if ((word & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fffffff;
    }
    // 0 and minus 0 are equal.
    return int(word) >= 0 ? int(word) : -int(word & 0x7fffffffu);
}

bool before(int a, int b) {
    return LARGEST ? a > b : a < b;
}

void main() {
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint index = gl_GlobalInvocationID.x; index < count; index += step) {
        const uint own = index / inner % length;
        const uint outer = index / inner / length;
        const uint line = x_offset + outer * length * inner + index % inner;
        const int key = key_of(x_words[line + own * inner]);
        uint rank = 0;
        for (uint i = 0; i < length; i++) {
            const int other = key_of(x_words[line + i * inner]);
            rank += before(other, key) || (other == key && i < own) ? 1 : 0;
        }
        if (rank < k) {
            const uint to = y_offset + 2 * ((outer * k + rank) * inner + index % inner);
            y_words[to] = own;
            y_words[to + 1] = 0;
        }
    }
}
