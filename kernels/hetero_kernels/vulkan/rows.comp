// Rows reduced or normalised, a workgroup a row: sums, means, products, extremes, softmax, layer and RMS normalisation.
// Row r begins at r / inner * outer_step + r % inner * inner_step, and its elements are `step_size` apart.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"
#include "numbers.glsl"

#define SUM 0
#define MEAN 1
#define GREATEST 2
#define LEAST 3
#define SOFTMAX 4
#define LOG_SOFTMAX 5
#define LAYER_NORM 6
#define RMS_NORM 7
#define PRODUCT 8

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = 0;
layout(constant_id = 2) const uint FROM = 0;
layout(constant_id = 3) const uint TO = 0;
layout(constant_id = 4) const bool WEIGHT = false;
layout(constant_id = 5) const bool BIAS = false;
layout(constant_id = 6) const uint LANES = 64;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) readonly buffer Weight { float weight[]; };
layout(std430, binding = 2) readonly buffer Bias { float bias[]; };
layout(std430, binding = 3) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint rows;
    uint length_;
    uint inner;
    uint x_offset;
    uint x_outer;
    uint x_inner;
    uint x_step;
    uint y_offset;
    uint y_outer;
    uint y_inner;
    uint y_step;
    uint weight_offset;
    uint bias_offset;
    float epsilon;
};

shared float parts[LANES];

float x_at(uint from, uint i) {
    const uint at = from + i * x_step;
    return from_word(FROM, x_words[at / per_word(FROM)], at);
}

// Of what each invocation has; all of them get it.
float together(uint operation, float own) {
    const uint lane = gl_LocalInvocationIndex;
    parts[lane] = own;
    for (uint reach = LANES / 2; reach > 0; reach /= 2) {
        barrier();
        if (lane < reach) {
            const float other = parts[lane + reach];
            parts[lane] = operation == GREATEST ? greatest_of(parts[lane], other)
                : operation == LEAST ? least_of(parts[lane], other)
                : operation == PRODUCT ? parts[lane] * other : parts[lane] + other;
        }
    }
    barrier();
    const float result = parts[0];
    barrier();
    return result;
}

void main() {
    const uint lane = gl_LocalInvocationIndex;
    for (uint row = gl_WorkGroupID.x; row < rows; row += gl_NumWorkGroups.x) {
        const uint from = x_offset + row / inner * x_outer + row % inner * x_inner;
        const uint to = y_offset + row / inner * y_outer + row % inner * y_inner;
        const bool extreme = OPERATION == GREATEST || OPERATION == LEAST;
        const bool soft = OPERATION == SOFTMAX || OPERATION == LOG_SOFTMAX;
        float own = OPERATION == LEAST ? INFINITE : extreme || soft ? -INFINITE : OPERATION == PRODUCT ? 1.0 : 0.0;
        for (uint i = lane; i < length_; i += LANES) {
            const float x = x_at(from, i);
            own = OPERATION == LEAST ? least_of(own, x) : extreme || soft ? greatest_of(own, x)
                : OPERATION == RMS_NORM ? own + x * x : OPERATION == PRODUCT ? own * x : own + x;
        }
        const float first = together(soft ? GREATEST : OPERATION, own);
        if (OPERATION <= LEAST || OPERATION == PRODUCT) {
            if (lane == 0) {
                y_words[to] = floatBitsToUint(OPERATION == MEAN ? first / float(length_) : first);
            }
            continue;
        }
        // y = (x - shift) * factor, or the exponential of it.
        float shift = soft ? first : OPERATION == LAYER_NORM ? first / float(length_) : 0.0;
        float factor = 1.0;
        if (OPERATION == RMS_NORM) {
            factor = 1.0 / sqrt_of(first / float(length_) + epsilon);
        } else {
            float more = 0.0;
            for (uint i = lane; i < length_; i += LANES) {
                const float away = x_at(from, i) - shift;
                more += soft ? exp_of(away) : away * away;
            }
            const float second = together(SUM, more);
            if (OPERATION == LOG_SOFTMAX) {
                factor = log_of(second);
            } else {
                factor = 1.0 / (soft ? second : sqrt_of(second / float(length_) + epsilon));
            }
        }
        const uint each = per_word(TO);
        for (uint i = lane * each; i < length_; i += LANES * each) {
            uint made = 0;
            for (uint e = 0; e < each; e++) {
                if (i + e < length_) {
                    const float away = x_at(from, i + e) - shift;
                    float y = OPERATION == SOFTMAX ? exp_of(away) * factor
                        : OPERATION == LOG_SOFTMAX ? away - factor : away * factor;
                    if (WEIGHT) {
                        y *= weight[weight_offset + i + e];
                    }
                    if (BIAS) {
                        y += bias[bias_offset + i + e];
                    }
                    made |= to_word(TO, y, i + e);
                }
            }
            y_words[(to + i * y_step) / each] = made;
        }
    }
}
