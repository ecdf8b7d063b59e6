// target[o, i, r] = source[o, indices[o, i, r], r], of whole words: an element is one or two. An index below 0 counts from
// the end, and one that is beyond is the last.
#version 450

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint WORDS = 1;

layout(std430, binding = 0) readonly buffer Source { uint source[]; };
layout(std430, binding = 1) readonly buffer Indices { int indices[]; };
layout(std430, binding = 2) writeonly buffer Target { uint target[]; };

layout(push_constant) uniform Push {
    uint count;
    uint size;
    uint from_offset;
    uint index_offset;
    uint to_offset;
    // The sizes of the target, and the steps in the source: 0 along the axis, whose step stands apart.
    uint d0; uint d1; uint d2; uint d3; uint d4; uint d5;
    uint f0; uint f1; uint f2; uint f3; uint f4; uint f5;
    uint axis_step;
};

void main() {
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint index = gl_GlobalInvocationID.x; index < count; index += step) {
        const int asked = indices[index_offset + index];
        const int row = clamp(asked < 0 ? asked + int(size) : asked, 0, int(size) - 1);
        uint from = uint(row) * axis_step;
        uint left = index;
#define AXIS(N)                                          \
    {                                                    \
        const uint outer = left / d##N;                  \
        from += (left - outer * d##N) * f##N;            \
        left = outer;                                    \
    }
        AXIS(5) AXIS(4) AXIS(3) AXIS(2) AXIS(1) AXIS(0)
        for (uint k = 0; k < WORDS; k++) {
            target[to_offset + index * WORDS + k] = source[from_offset + from * WORDS + k];
        }
    }
}
