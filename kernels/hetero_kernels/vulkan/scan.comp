// Along one axis: sums so far, or the place of the greatest or least element. An invocation goes along one line.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;
// Of x; PAIRS are whole numbers of 64 bits in two words, the lower first.
layout(constant_id = 2) const uint TYPE = 0;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint lines;
    uint length;
    uint inner;
    uint x_offset;
    uint y_offset;
    uint backwards;
    uint exclusive;
};

#define SUMS 0
#define GREATEST 1
#define LEAST 2
#define PAIRS 4

uint place_of(uint line, uint i) {
    const uint along = backwards != 0 ? length - 1 - i : i;
    return (line / inner * length + along) * inner + line % inner;
}

void sums(uint line) {
    float total = 0.0;
    uvec2 whole = uvec2(0);
    for (uint i = 0; i < length; i++) {
        const uint at = place_of(line, i);
        const float total_before = total;
        const uvec2 before = whole;
        if (TYPE == PAIRS) {
            const uint low = whole.x + x_words[x_offset + 2 * at];
            whole = uvec2(low, whole.y + x_words[x_offset + 2 * at + 1] + (low < whole.x ? 1 : 0));
        } else if (TYPE == I32) {
            whole.x += x_words[x_offset + at];
        } else {
            total += uintBitsToFloat(x_words[x_offset + at]);
        }
        const uvec2 kept = exclusive != 0 ? before : whole;
        if (TYPE == PAIRS) {
            y_words[y_offset + 2 * at] = kept.x;
            y_words[y_offset + 2 * at + 1] = kept.y;
        } else {
            y_words[y_offset + at] = TYPE == I32 ? kept.x : floatBitsToUint(exclusive != 0 ? total_before : total);
        }
    }
}

// Whether a is more extreme than b; NaN is more extreme than all else, as in numpy.
bool beats(uint a, uint b) {
    if (TYPE == I32) {
        return OPERATION == GREATEST ? int(a) > int(b) : int(a) < int(b);
    }
    const float x = uintBitsToFloat(a);
    const float y = uintBitsToFloat(b);
    return y == y && (x != x || (OPERATION == GREATEST ? x > y : x < y));
}

void extreme(uint line) {
    uint found = 0;
    uint best = x_words[x_offset + place_of(line, 0)];
    for (uint i = 1; i < length; i++) {
        const uint word = x_words[x_offset + place_of(line, i)];
        if (beats(word, best)) {
            best = word;
            found = i;
        }
    }
    y_words[y_offset + 2 * line] = backwards != 0 ? length - 1 - found : found;
    y_words[y_offset + 2 * line + 1] = 0;
}

void main() {
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint line = gl_GlobalInvocationID.x; line < lines; line += step) {
        if (OPERATION == SUMS) {
            sums(line);
        } else {
            extreme(line);
        }
    }
}
