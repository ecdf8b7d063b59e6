// target = source transposed: [rows, columns] to [columns, rows], for each of the matrices in z.
// A workgroup moves a square of TILE x TILE through shared memory, so that both sides are read and written in order.
#version 450

layout(constant_id = 0) const uint TILE = 16;
layout(local_size_x_id = 0, local_size_y_id = 0) in;

layout(std430, binding = 0) readonly buffer Source { float source[]; };
layout(std430, binding = 1) writeonly buffer Target { float target[]; };

layout(push_constant) uniform Push {
    uint rows;
    uint columns;
};

// One column more: neighbours in a column lie in different banks.
shared float square[TILE][TILE + 1];

void main() {
    const uint matrix = gl_WorkGroupID.z * rows * columns;
    const uvec2 corner = gl_WorkGroupID.xy * TILE;
    const uvec2 here = gl_LocalInvocationID.xy;
    const uvec2 from = corner + here;
    if (from.x < columns && from.y < rows) {
        square[here.y][here.x] = source[matrix + from.y * columns + from.x];
    }
    barrier();
    const uvec2 to = corner.yx + here;
    if (to.x < rows && to.y < columns) {
        target[matrix + to.y * rows + to.x] = square[here.x][here.y];
    }
}
