// Elements from anywhere to anywhere, by strides of up to six dimensions: transposes, slices, broadcasts, parts of a
// concatenation, padding, and casts on the way. An invocation makes a word of the target.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint FROM = 0;
layout(constant_id = 2) const uint TO = 0;
// 0: none; else the source has n0.. elements an axis, begins at s0.., and beyond it is 1: a value, 2: its edge, 3: itself
// mirrored; the target lies in order.
layout(constant_id = 3) const uint PADDING = 0;
layout(constant_id = 4) const bool IN_ORDER = false;
// Axes that are there, the last ones: each further one costs a division.
layout(constant_id = 5) const uint RANK = 6;

layout(std430, binding = 0) readonly buffer Source { uint source[]; };
layout(std430, binding = 1) writeonly buffer Target { uint target[]; };

layout(push_constant) uniform Push {
    uint count;
    uint from_offset;
    uint to_offset;
    float value;
    uint d0; uint d1; uint d2; uint d3; uint d4; uint d5;
    uint f0; uint f1; uint f2; uint f3; uint f4; uint f5;
    int s0; int s1; int s2; int s3; int s4; int s5;
    uint n0; uint n1; uint n2; uint n3; uint n4; uint n5;
};

// Where of `size` elements the one is that stands at `i`; below 0: nowhere.
int found(int i, int size) {
    if (i >= 0 && i < size) {
        return i;
    }
    if (PADDING == 2) {
        return clamp(i, 0, size - 1);
    }
    if (PADDING == 3) {
        const int period = max(2 * (size - 1), 1);
        const int within = ((i % period) + period) % period;
        return within < size ? within : period - within;
    }
    return -1;
}

void main() {
    const uint each = per_word(TO);
    const uint words = (count + each - 1) / each;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint w = gl_GlobalInvocationID.x; w < words; w += step) {
        uint made = 0;
        uint to = to_offset;
        for (uint e = 0; e < each; e++) {
            const uint index = w * each + e;
            if (index < count) {
                uint from = from_offset;
                uint left = index;
                uint place = to_offset;
                bool there = true;
#define AXIS(N)                                                          \
    if (RANK + N >= 6) {                                                 \
        const uint outer = RANK + N == 6 ? 0 : left / d##N;              \
        const uint i = left - outer * d##N;                              \
        left = outer;                                                    \
        if (PADDING != 0) {                                              \
            const int at = found(int(i) - s##N, int(n##N));              \
            there = there && at >= 0;                                    \
            from += uint(max(at, 0)) * f##N;                             \
        } else {                                                         \
            from += i * f##N;                                            \
            place += i * uint(s##N);                                     \
        }                                                                \
    }
                AXIS(5) AXIS(4) AXIS(3) AXIS(2) AXIS(1) AXIS(0)
                if (PADDING != 0 || IN_ORDER) {
                    place = to_offset + index;
                }
                if (e == 0) {
                    to = place;
                }
                if (there) {
                    made |= moved(FROM, TO, source[from / per_word(FROM)], from, place);
                } else {
                    made |= to_word(TO, value, place);
                }
            }
        }
        target[to / each] = made;
    }
}
