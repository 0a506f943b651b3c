/* What the machine can do: ReLU, its backward pass and a copy, written by hand with wide vectors, streaming
   (non-temporal) stores and OpenMP. Compiled on the fly by fastrelu/_bench/limit.py with -O3 -march=native.

   Every function is name(x, grad, out, n); what an operation does not need is ignored. "plain" writes through
   the caches and may run in place; "stream" bypasses them and must not. */

#include <stddef.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

/* Below this many elements the start of a parallel region costs more than it saves. */
#define PARALLEL_FROM 65536

#if defined(__AVX512F__)
#define WIDTH 64
#define STREAM(p, v) _mm512_stream_si512((void *)(p), (__m512i)(v))
#elif defined(__AVX__)
#define WIDTH 32
#define STREAM(p, v) _mm256_stream_si256((__m256i *)(p), (__m256i)(v))
#elif defined(__SSE2__)
#define WIDTH 16
#define STREAM(p, v) _mm_stream_si128((__m128i *)(p), (__m128i)(v))
#else
#define WIDTH 16
#define STREAM(p, v) (*(p) = (v))
#endif

#if defined(__SSE2__)
#define FENCE() _mm_sfence()
#else
#define FENCE() ((void)0)
#endif

void limit_set_threads(int count)
{
#ifdef _OPENMP
    omp_set_num_threads(count);
#else
    (void)count;
#endif
}

/* One thread's share, as [begin, end) of n vectors. */
static void share(ptrdiff_t n, ptrdiff_t *begin, ptrdiff_t *end)
{
    ptrdiff_t threads = 1, me = 0;
#ifdef _OPENMP
    threads = omp_get_num_threads();
    me = omp_get_thread_num();
#endif
    *begin = n * me / threads;
    *end = n * (me + 1) / threads;
}

/* Masks instead of max(): NaN and -0.0 come through as fastrelu defines them. */
#define RELU(x, g, I) ((I)(x) & ~(I)((x) < 0))
#define BACKWARD(x, g, I) ((I)(g) & ~(I)((x) <= 0))
#define COPY(x, g, I) ((I)(x))
#define RELU_ONE(x, g) ((x) < 0 ? 0 : (x))
#define BACKWARD_ONE(x, g) ((x) <= 0 ? 0 : (g))
#define COPY_ONE(x, g) (x)

#define KERNEL(NAME, KIND, STORE, MANY, ONE, T, I, S)                                                         \
    void NAME##_##KIND##_##S(const T *x, const T *g, T *out, ptrdiff_t n)                                     \
    {                                                                                                         \
        typedef T vec __attribute__((vector_size(WIDTH), aligned(sizeof(T)), may_alias));                     \
        typedef I bits __attribute__((vector_size(WIDTH), may_alias));                                        \
        const ptrdiff_t lanes = WIDTH / sizeof(T);                                                            \
        ptrdiff_t head = (ptrdiff_t)((WIDTH - (uintptr_t)out % WIDTH) % WIDTH / sizeof(T));                   \
        (void)g;                                                                                              \
        if (head > n)                                                                                         \
            head = n;                                                                                         \
        const ptrdiff_t vectors = (n - head) / lanes;                                                         \
        for (ptrdiff_t i = 0; i < head; i++)                                                                  \
            out[i] = ONE(x[i], g[i]);                                                                         \
        _Pragma("omp parallel if (n >= PARALLEL_FROM)")                                                       \
        {                                                                                                     \
            ptrdiff_t begin, end;                                                                             \
            share(vectors, &begin, &end);                                                                     \
            for (ptrdiff_t k = begin; k < end; k++) {                                                         \
                ptrdiff_t i = head + k * lanes;                                                               \
                vec a = *(const vec *)(x + i), b = a;                                                         \
                if (USES_##NAME)                                                                              \
                    b = *(const vec *)(g + i);                                                                \
                (void)b;                                                                                      \
                STORE((bits *)(out + i), (MANY(a, b, bits)));                                                 \
            }                                                                                                 \
            FENCE();                                                                                          \
        }                                                                                                     \
        for (ptrdiff_t i = head + vectors * lanes; i < n; i++)                                                \
            out[i] = ONE(x[i], g[i]);                                                                         \
    }

#define PLAIN(p, v) (*(p) = (v))
#define USES_relu 0
#define USES_copy 0
#define USES_relu_backward 1

#define ALL(T, I, S)                                                                                          \
    KERNEL(relu, plain, PLAIN, RELU, RELU_ONE, T, I, S)                                                       \
    KERNEL(relu, stream, STREAM, RELU, RELU_ONE, T, I, S)                                                     \
    KERNEL(relu_backward, plain, PLAIN, BACKWARD, BACKWARD_ONE, T, I, S)                                      \
    KERNEL(relu_backward, stream, STREAM, BACKWARD, BACKWARD_ONE, T, I, S)                                    \
    KERNEL(copy, stream, STREAM, COPY, COPY_ONE, T, I, S)

ALL(float, int32_t, float32)
ALL(double, int64_t, float64)
