// Activations, chosen by number; none of them gives NaN where numpy gives a number.
#define NONE 0
#define RELU 1
#define GELU_ERF 2
#define GELU_TANH 3
#define SIGMOID 4
#define TANH 5
#define SILU 6

// Some drivers compute tanh by exp(2x), which is infinity over infinity for large x.
float safe_tanh(float x) {
    return x != x ? x : tanh(clamp(x, -15.0, 15.0));
}

float safe_sigmoid(float x) {
    const float e = exp(-min(abs(x), 100.0));
    return x != x ? x : (x >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e));
}

// Near 0 the Maclaurin series; beyond, erfc as a polynomial in 1 / (1 + x/2) times exp(-x*x)
// (Numerical Recipes in C, 2nd edition, chapter 6.2, relative error 1.2e-7).
float error_function(float x) {
    const float a = min(abs(x), 6.0);
    const float s = a * a;
    const float near = x * (1.1283791671 + s * (-0.3761263890 + s * (0.1128379167 + s * (-0.0268661706
            + s * (0.0052239776 + s * (-0.0008548327 + s * 0.0001205533))))));
    const float t = 1.0 / (1.0 + 0.5 * a);
    const float p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    const float y = 1.0 - t * exp(-a * a + p);
    return x != x ? x : a < 0.5 ? near : x > 0.0 ? y : -y;
}

// x times a factor from 0 to 1: minus infinity gives minus 0 and not NaN.
float weighted(float x, float factor) {
    return factor == 0.0 ? 0.0 : x * factor;
}

float activated(uint kind, float x) {
    switch (kind) {
    case RELU:
        return x != x ? x : max(x, 0.0);
    case GELU_ERF:
        return x != x ? x : weighted(x, 0.5 + 0.5 * error_function(x * 0.70710678118));
    case GELU_TANH: {
        const float c = clamp(x, -20.0, 20.0);
        return x != x ? x : weighted(x, 0.5 + 0.5 * safe_tanh(0.79788456080 * (c + 0.044715 * c * c * c)));
    }
    case SIGMOID:
        return safe_sigmoid(x);
    case TANH:
        return safe_tanh(x);
    case SILU:
        return x != x ? x : weighted(x, safe_sigmoid(x));
    }
    return x;
}
