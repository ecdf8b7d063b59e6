// Numbers as integers with a scale and a zero point, and back: q = round(x / scale) + zero, y = (q - zero) * scale. An
// invocation makes a word of y. The scale of an element is that of its place along an axis, or of a block of places.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

#define TO_INTEGERS 0
#define FROM_INTEGERS 1
#define BOTH 2

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;
layout(constant_id = 2) const uint FROM = 0;
layout(constant_id = 3) const uint TO = 0;
layout(constant_id = 4) const bool ZERO = false;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) readonly buffer Scale { float scales[]; };
layout(std430, binding = 2) readonly buffer Zero { int zeros[]; };
layout(std430, binding = 3) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint x_offset;
    uint y_offset;
    uint scale_offset;
    uint zero_offset;
    // Element (outer, i, within) of [.., axis_length, inner] has the scale outer * outer_step + i / block * axis_step
    // + within * inner_step.
    uint inner;
    uint axis_length;
    uint block;
    uint outer_step;
    uint axis_step;
    uint inner_step;
    int least;
    int greatest;
};

float integer_of(float x, float scale, int zero) {
    return clamp(roundEven(x / scale) + float(zero), float(least), float(greatest));
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
                const uint line = index / inner;
                const uint place = line / axis_length * outer_step + line % axis_length / block * axis_step
                    + index % inner * inner_step;
                const float scale = scales[scale_offset + place];
                const int zero = ZERO ? zeros[zero_offset + place] : 0;
                const uint at = x_offset + index;
                const uint word = x_words[at / per_word(FROM)];
                float y;
                if (OPERATION == FROM_INTEGERS) {
                    const int whole = FROM == I32 ? int(word) : int(from_word(FROM, word, at));
                    y = float(whole - zero) * scale;
                } else {
                    y = integer_of(from_word(FROM, word, at), scale, zero);
                    if (OPERATION == BOTH) {
                        y = (y - float(zero)) * scale;
                    }
                }
                made |= to_word(TO, y, index);
            }
        }
        y_words[y_offset / each + w] = made;
    }
}
