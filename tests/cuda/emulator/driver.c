/* A CUDA driver whose GPUs are this process: their memory is the host's, and their kernels are machine code that the
 * tests make of PTX (ptx.py). It has what fastrelu and Numba's CUDA target call, with the meaning that NVIDIA's "CUDA
 * Driver API" gives it, and is stricter than a GPU:
 *
 * - Work is done as late as the order allows. What a stream was given waits until somebody waits for it; so the result
 *   of missing synchronisation is always wrong, not sometimes.
 * - Every access of a kernel is checked: it must be aligned to its size and lie in memory of the GPU it runs on. One
 *   that is not makes all further work fail, as on a GPU.
 * - New memory of up to 256 MiB is full of 0xA5, and freed memory is not the GPU's any more. Freeing it waits for what
 *   uses it, as on a GPU, and for nothing else.
 *
 * - While a graph is captured, whatever may be unsafe is prohibited, and spoils the capture: loading, allocating,
 *   freeing, making streams, asking for memory or whether an event has come. A real driver lets some of these pass.
 *
 * Copies from and to host memory wait only if that is pinned, as on a GPU.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, MISALIGNED_ADDRESS = 716,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903,
    CAPTURE_ISOLATION = 905, CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907, CAPTURE_WRONG_THREAD = 908,
};
enum { GLOBAL, THREAD_LOCAL, RELAXED }; /* modes of a capture, and of a thread */
enum { MAX_DEVICES = 8, MAX_PARAMETERS = 128, PARAMETER_SIZE = 16 };

typedef int result;
typedef uint64_t address;

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
#define LOCKED __attribute__((cleanup(unlock))) int locked = pthread_mutex_lock(&lock); (void)locked
static void unlock(int *unused) { (void)unused; pthread_mutex_unlock(&lock); }

/* ---- what the tests set and read ----------------------------------------------------------------------------------- */

typedef struct kernel { void (*run)(char *, uint32_t *); int count; int sizes[MAX_PARAMETERS]; char name[512]; int loaded; } kernel;

static int devices = 1;
static size_t memory_size = (size_t)8 << 30;
static int (*compile)(const char *image, const char *name, kernel *into);
static long fault;
static int idle;

void emulator_set(int count, size_t bytes, int (*callback)(const char *, const char *, kernel *)) {
    devices = count; memory_size = bytes; compile = callback;
}
/* Have launches do nothing at all, to see what a call costs before it gets here. */
void emulator_idle(int on) { idle = on; }

/* ---- memory --------------------------------------------------------------------------------------------------------- */

enum { PINNED = MAX_DEVICES }; /* the "device" of pinned host memory */
typedef struct block { address start; size_t size; int device; void *raw; } block;

static block *blocks; /* sorted by address */
static size_t block_count, block_room, used[MAX_DEVICES + 1];
static size_t last_found;

static block *find(address where) {
    if (last_found < block_count && where - blocks[last_found].start < blocks[last_found].size) return &blocks[last_found];
    size_t low = 0, high = block_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].start <= where) low = middle + 1; else high = middle;
    }
    if (!low || where - blocks[low - 1].start >= blocks[low - 1].size) return NULL;
    last_found = low - 1;
    return &blocks[low - 1];
}

static result allocate(int device, size_t size, address *out) {
    if (!size) return INVALID_VALUE;
    if (device != PINNED && used[device] + size > memory_size) return OUT_OF_MEMORY;
    void *raw = malloc(size + 256);
    if (!raw) return OUT_OF_MEMORY;
    address start = ((address)raw + 255) / 256 * 256;
    if (size < (size_t)1 << 28) memset((void *)start, 0xA5, size);
    if (block_count == block_room) {
        block_room = block_room ? 2 * block_room : 64;
        blocks = realloc(blocks, block_room * sizeof *blocks);
    }
    size_t k = block_count++;
    for (; k && blocks[k - 1].start > start; k--) blocks[k] = blocks[k - 1];
    blocks[k] = (block){start, size, device, raw};
    used[device] += size;
    *out = start;
    return SUCCESS;
}

static void finish_with(block *it);

static result release(address start) {
    block *found = find(start);
    if (!found || found->start != start) return INVALID_VALUE;
    finish_with(found);
    used[found->device] -= found->size;
    free(found->raw);
    memmove(found, found + 1, (char *)(blocks + block_count) - (char *)(found + 1));
    block_count--;
    return SUCCESS;
}

/* ---- contexts ------------------------------------------------------------------------------------------------------- */

typedef struct context { int device; } context;

static context contexts[MAX_DEVICES];
static __thread context *current[64];
static __thread int depth; /* the bottom of the stack is what cuCtxSetCurrent sets; there is always a place for it */

static context *here(void) { return current[depth]; }

/* ---- streams: queues of work ------------------------------------------------------------------------------------------ */

typedef struct stream stream;
typedef struct operation {
    enum { COPY, FILL, LAUNCH, WAIT, MARK } kind;
    struct operation *next;
    long number;
    address to, from;
    size_t size;
    unsigned value;
    stream *other;
    long until;
    kernel *code;
    uint32_t grid[3], threads[3];
    char *parameters; /* freed when done */
} operation;
/* What was captured, in the order in which it was given, which is one that its streams allow. */
typedef struct graph { operation *first, **last; stream *origin; int mode, spoilt; pthread_t by; } graph;
struct stream { operation *first, **last; context *owner; int blocking; stream *next; graph *captured; };

static long numbers;
static stream legacy[MAX_DEVICES], per_thread[MAX_DEVICES], *streams;

static stream *new_stream(context *owner, int blocking) {
    stream *made = calloc(1, sizeof *made);
    *made = (stream){NULL, NULL, owner, blocking, streams, NULL};
    made->last = &made->first;
    return streams = made;
}

static stream *stream_of(void *handle) {
    context *owner = here();
    if (!owner) return NULL;
    stream *default_one = handle == (void *)2 ? &per_thread[owner->device] : &legacy[owner->device];
    if ((uintptr_t)handle > 2) return handle;
    if (!default_one->last) *default_one = (stream){NULL, &default_one->first, owner, 1, streams, NULL}, streams = default_one;
    return default_one;
}

/* ---- captures --------------------------------------------------------------------------------------------------------- */

static __thread int thread_mode = GLOBAL;

static result spoil(graph *it, result why) { it->spoilt = 1; return why; }

/* Say whether a call that may be unsafe is prohibited now, and spoil the captures that it would harm. */
static result prohibited(void) {
    result found = SUCCESS;
    for (stream *each = streams; each; each = each->next) {
        graph *it = each->captured;
        if (!it || it->mode == RELAXED || thread_mode == RELAXED) continue;
        int ours = pthread_equal(it->by, pthread_self());
        if (ours || (thread_mode == GLOBAL && it->mode == GLOBAL)) found = spoil(it, CAPTURE_UNSUPPORTED);
    }
    return found;
}
#define MAY_BE_UNSAFE do { result no = prohibited(); if (no) return no; } while (0)

result cuThreadExchangeStreamCaptureMode(int *mode) { int before = thread_mode; thread_mode = *mode; *mode = before; return SUCCESS; }

static __thread jmp_buf stop;
static __thread kernel *running;
static __thread int running_on;
static __thread uint32_t *thread_at;

void emulator_check(address where, uint32_t size) {
    block *found = find(where);
    int code = where % size ? MISALIGNED_ADDRESS : !found || found->device != running_on
        || where + size > found->start + found->size ? ILLEGAL_ADDRESS : SUCCESS;
    if (!code) return;
    fprintf(stderr, "emulated GPU: %s, thread (%u, %u) of block %u: %s access of %u bytes at %#lx\n", running->name,
            thread_at[0], thread_at[1], thread_at[6], code == ILLEGAL_ADDRESS ? "illegal" : "misaligned", size, where);
    longjmp(stop, code);
}

static void launch_now(operation *work, int device) {
    uint32_t special[12];
    memcpy(special + 3, work->threads, 12);
    memcpy(special + 9, work->grid, 12);
    running = work->code, running_on = device, thread_at = special;
    int code = setjmp(stop);
    if (code) { fault = code; return; }
    /* blocks from the last to the first: nothing may rely on their order */
    for (uint32_t z = work->grid[2]; z-- > 0;) for (uint32_t y = work->grid[1]; y-- > 0;) for (uint32_t x = work->grid[0]; x-- > 0;) {
        special[6] = x, special[7] = y, special[8] = z;
        for (special[2] = 0; special[2] < work->threads[2]; special[2]++)
            for (special[1] = 0; special[1] < work->threads[1]; special[1]++)
                for (special[0] = 0; special[0] < work->threads[0]; special[0]++) work->code->run(work->parameters, special);
    }
}

static void run_until(stream *from, long number);

static void step(stream *from) {
    operation *work = from->first;
    from->first = work->next;
    if (!from->first) from->last = &from->first;
    if (!fault) switch (work->kind) {
        case COPY: memmove((void *)work->to, (void *)work->from, work->size); break;
        case FILL: memset((void *)work->to, (int)work->value, work->size); break;
        case LAUNCH: launch_now(work, from->owner->device); break;
        case WAIT: run_until(work->other, work->until); break;
        case MARK: break;
    }
    free(work->parameters);
    free(work);
}

static void run_until(stream *from, long number) { while (from->first && from->first->number <= number) step(from); }
static void run_all(stream *from) { while (from->first) step(from); }
static void run_everything(void) { for (stream *each = streams; each; each = each->next) run_all(each); }

static int inside(block *it, address where, size_t size) {
    return where < it->start + it->size && where + (size ? size : 1) > it->start;
}

/* Do all work that a block of memory is still needed for. */
static void finish_with(block *it) {
    block the = *it;
    for (stream *each = streams; each; each = each->next) {
        long last = 0;
        for (operation *work = each->first; work; work = work->next) {
            int used = work->kind == COPY && (inside(&the, work->to, work->size) || inside(&the, work->from, work->size));
            used |= work->kind == FILL && inside(&the, work->to, work->size);
            if (work->kind == LAUNCH) for (int k = 0; k < work->code->count; k++) {
                address value; /* not every number is an address; finishing early on a chance hit does no harm */
                memcpy(&value, work->parameters + k * PARAMETER_SIZE, sizeof value);
                used |= work->code->sizes[k] == 8 && inside(&the, value, 1);
            }
            if (used) last = work->number;
        }
        run_until(each, last);
    }
}

static operation *append(stream *to, operation work) {
    operation *made = malloc(sizeof *made);
    *made = work;
    made->next = NULL, made->number = ++numbers;
    *to->last = made, to->last = &made->next;
    return made;
}

/* Give a stream work; the default stream and those that are not "non-blocking" are in order with one another. */
static operation *give(stream *to, operation work) {
    if (to->captured) {
        operation *made = malloc(sizeof *made);
        *made = work, made->next = NULL, made->number = 0;
        *to->captured->last = made, to->captured->last = &made->next;
        return made;
    }
    if (to->blocking) for (stream *each = streams; each; each = each->next) {
        int one_is_default = to == &legacy[to->owner->device] || each == &legacy[to->owner->device];
        if (each != to && each->blocking && each->first && one_is_default && each->owner == to->owner)
            append(to, (operation){.kind = WAIT, .other = each, .until = numbers});
    }
    return append(to, work);
}

/* Why a stream cannot be used, if so. */
static result usable(stream *queue) {
    if (!queue) return INVALID_CONTEXT;
    if (queue->owner != here()) return INVALID_HANDLE;
    if (queue->captured && queue->captured->spoilt) return CAPTURE_INVALIDATED;
    if (queue == &legacy[queue->owner->device]) for (stream *each = streams; each; each = each->next) /* it would wait for these */
        if (each->captured && each->blocking && each->owner == queue->owner) return spoil(each->captured, CAPTURE_IMPLICIT);
    return (result)fault;
}
#define STREAM(handle) stream *queue = stream_of(handle); if (usable(queue)) return usable(queue)

static result copy(address to, address from, size_t size, void *handle, int wait) {
    STREAM(handle);
    if (wait && queue->captured) return spoil(queue->captured, CAPTURE_UNSUPPORTED);
    if (wait) MAY_BE_UNSAFE;
    give(queue, (operation){.kind = COPY, .to = to, .from = from, .size = size});
    if (wait) run_all(queue);
    return (result)fault;
}

static int in_memory(address where, size_t size) {
    block *found = find(where);
    return !size || (found && found->device != PINNED && where + size <= found->start + found->size);
}
static int pinned(const void *where) { block *found = find((address)where); return found && found->device == PINNED; }

result cuMemcpyHtoDAsync_v2(address to, void *from, size_t size, void *handle) {
    LOCKED;
    if (!in_memory(to, size)) return INVALID_VALUE;
    STREAM(handle);
    operation *work = give(queue, (operation){.kind = COPY, .to = to, .from = (address)from, .size = size});
    if (!pinned(from)) work->from = (address)(work->parameters = memcpy(malloc(size + 1), from, size));
    return SUCCESS;
}
result cuMemcpyDtoHAsync_v2(void *to, address from, size_t size, void *handle) {
    LOCKED; return in_memory(from, size) ? copy((address)to, from, size, handle, !pinned(to)) : INVALID_VALUE;
}
result cuMemcpyDtoDAsync_v2(address to, address from, size_t size, void *handle) {
    LOCKED; return in_memory(to, size) && in_memory(from, size) ? copy(to, from, size, handle, 0) : INVALID_VALUE;
}
result cuMemcpyHtoD_v2(address to, void *from, size_t size) {
    LOCKED; return in_memory(to, size) ? copy(to, (address)from, size, NULL, 1) : INVALID_VALUE;
}
result cuMemcpyDtoH_v2(void *to, address from, size_t size) {
    LOCKED; return in_memory(from, size) ? copy((address)to, from, size, NULL, 1) : INVALID_VALUE;
}
result cuMemcpyDtoD_v2(address to, address from, size_t size) {
    LOCKED; return in_memory(to, size) && in_memory(from, size) ? copy(to, from, size, NULL, 0) : INVALID_VALUE;
}
result cuMemsetD8Async(address to, unsigned char value, size_t size, void *handle) {
    LOCKED;
    if (!in_memory(to, size)) return INVALID_VALUE;
    STREAM(handle);
    give(queue, (operation){.kind = FILL, .to = to, .size = size, .value = value});
    return SUCCESS;
}
result cuMemsetD8_v2(address to, unsigned char value, size_t size) { return cuMemsetD8Async(to, value, size, NULL); }

result cuStreamCreate(void **out, unsigned flags) {
    LOCKED;
    if (!here() || fault) return here() ? (result)fault : INVALID_CONTEXT;
    MAY_BE_UNSAFE;
    *out = new_stream(here(), !(flags & 1));
    return SUCCESS;
}
result cuStreamCreateWithPriority(void **out, unsigned flags, int priority) { (void)priority; return cuStreamCreate(out, flags); }
result cuStreamDestroy_v2(void *handle) { LOCKED; run_all(handle); return SUCCESS; } /* its memory stays: events name it */
result cuStreamSynchronize(void *handle) {
    LOCKED;
    STREAM(handle);
    if (queue->captured) return spoil(queue->captured, CAPTURE_UNSUPPORTED);
    MAY_BE_UNSAFE;
    run_all(queue);
    return (result)fault;
}
result cuStreamQuery(void *handle) {
    LOCKED;
    STREAM(handle);
    if (queue->captured) return spoil(queue->captured, CAPTURE_UNSUPPORTED);
    MAY_BE_UNSAFE;
    if (!queue->first) return SUCCESS;
    step(queue); /* whoever asks again and again gets there */
    return NOT_READY;
}
result cuStreamGetCtx(void *handle, void **out) { LOCKED; STREAM(handle); *out = queue->owner; return SUCCESS; }
result cuStreamAddCallback(void *handle, void (*callback)(void *, result, void *), void *data, unsigned flags) {
    (void)handle, (void)callback, (void)data, (void)flags;
    return NOT_SUPPORTED;
}

/* ---- events: places in a stream ---------------------------------------------------------------------------------------- */

typedef struct event { stream *in; long number; context *owner; graph *captured; } event;

result cuEventCreate(void **out, unsigned flags) {
    LOCKED; (void)flags;
    if (!here() || fault) return here() ? (result)fault : INVALID_CONTEXT;
    *out = calloc(1, sizeof(event));
    ((event *)*out)->owner = here();
    return SUCCESS;
}
result cuEventDestroy_v2(event *it) { LOCKED; free(it); return SUCCESS; }
result cuEventRecord(event *it, void *handle) {
    LOCKED;
    STREAM(handle);
    if (it->owner != queue->owner) return INVALID_HANDLE;
    it->in = queue, it->captured = queue->captured;
    it->number = give(queue, (operation){.kind = MARK})->number;
    return SUCCESS;
}
result cuStreamWaitEvent(void *handle, event *it, unsigned flags) {
    LOCKED; (void)flags;
    STREAM(handle);
    if (it->captured) { /* whoever waits for a captured event is captured too */
        if (queue->captured && queue->captured != it->captured) return spoil(queue->captured, CAPTURE_ISOLATION);
        queue->captured = it->captured;
        return SUCCESS;
    }
    if (queue->captured && it->in) return spoil(queue->captured, CAPTURE_ISOLATION);
    if (it->in) give(queue, (operation){.kind = WAIT, .other = it->in, .until = it->number});
    return SUCCESS;
}
result cuEventSynchronize(event *it) {
    LOCKED;
    if (it->captured) return spoil(it->captured, CAPTURED_EVENT);
    MAY_BE_UNSAFE;
    if (it->in) run_until(it->in, it->number);
    return (result)fault;
}
result cuEventQuery(event *it) {
    LOCKED;
    if (!here()) return INVALID_CONTEXT;
    if (it->captured) return spoil(it->captured, CAPTURED_EVENT);
    MAY_BE_UNSAFE;
    if (!it->in || !it->in->first || it->in->first->number > it->number) return (result)fault;
    step(it->in);
    return NOT_READY;
}
result cuEventElapsedTime_v2(float *out, event *from, event *to) { (void)from, (void)to; *out = 1; return SUCCESS; }

/* ---- graphs: work to be done again and again ----------------------------------------------------------------------------- */

result cuStreamBeginCapture_v2(void *handle, int mode) {
    LOCKED;
    STREAM(handle);
    if ((uintptr_t)handle < 2 || queue->captured) return CAPTURE_UNSUPPORTED;
    graph *made = queue->captured = calloc(1, sizeof *made);
    made->last = &made->first, made->origin = queue, made->mode = mode, made->by = pthread_self();
    return SUCCESS;
}
result cuStreamEndCapture(void *handle, graph **out) {
    LOCKED;
    stream *queue = stream_of(handle);
    graph *it = queue ? queue->captured : NULL;
    *out = NULL;
    if (!it || it->origin != queue) return CAPTURE_UNMATCHED;
    if (it->mode != RELAXED && !pthread_equal(it->by, pthread_self())) return CAPTURE_WRONG_THREAD;
    for (stream *each = streams; each; each = each->next) if (each->captured == it) each->captured = NULL;
    if (it->spoilt) return CAPTURE_INVALIDATED;
    *out = it;
    return SUCCESS;
}
result cuStreamIsCapturing(void *handle, int *out) {
    LOCKED;
    stream *queue = stream_of(handle);
    if (!queue) return INVALID_CONTEXT;
    *out = !queue->captured ? 0 : queue->captured->spoilt ? 2 : 1;
    return SUCCESS;
}
result cuGraphInstantiateWithFlags(graph **out, graph *from, unsigned long long flags) { (void)flags; *out = from; return SUCCESS; }
result cuGraphLaunch(graph *it, void *handle) {
    LOCKED;
    STREAM(handle);
    for (operation *each = it->first; each; each = each->next) {
        operation work = *each;
        size_t size = work.kind == LAUNCH ? ((size_t)work.code->count + 1) * PARAMETER_SIZE : work.kind == COPY ? work.size + 1 : 0;
        if (work.parameters) work.parameters = memcpy(malloc(size), each->parameters, size);
        if (work.kind == COPY && work.parameters) work.from = (address)work.parameters;
        give(queue, work);
    }
    return SUCCESS;
}
result cuGraphExecDestroy(graph *it) { (void)it; return SUCCESS; } /* its memory stays, as it is that of the graph too */
result cuGraphDestroy(graph *it) { (void)it; return SUCCESS; }

/* ---- kernels ------------------------------------------------------------------------------------------------------------- */

typedef struct library { char *image; } library;
/* CUlaunchConfig */
typedef struct { uint32_t grid[3], threads[3], shared; void *handle; void *attributes; uint32_t attribute_count; } configuration;

result cuLibraryLoadData(library **out, const void *image, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    LOCKED;
    MAY_BE_UNSAFE;
    *out = malloc(sizeof **out);
    (*out)->image = strdup(image);
    return SUCCESS;
}
result cuLibraryUnload(library *it) { (void)it; return SUCCESS; } /* kernels on their way may still want it */
result cuLibraryGetKernel(kernel **out, library *from, const char *name) {
    kernel *made = calloc(1, sizeof *made); /* not locked: the callback takes Python's lock */
    snprintf(made->name, sizeof made->name, "%s", name);
    if (compile(from->image, name, made)) return NOT_FOUND;
    *out = made;
    return SUCCESS;
}
result cuKernelGetFunction(kernel **out, kernel *it) { LOCKED; MAY_BE_UNSAFE; *out = it, it->loaded = 1; return SUCCESS; }
result cuFuncLoad(kernel *it) { (void)it; return SUCCESS; }
result cuKernelGetAttribute(int *out, int which, kernel *it, int device) {
    (void)it, (void)device;
    *out = which == 0 ? 1024 : which == 4 ? 32 : 0; /* threads per block, registers */
    return SUCCESS;
}
result cuKernelSetCacheConfig(kernel *it, int how, int device) { (void)it, (void)how, (void)device; return SUCCESS; }

result cuLaunchKernelEx(const configuration *how, kernel *code, void **parameters, void **extra) {
    if (idle) return SUCCESS;
    LOCKED;
    STREAM(how->handle);
    uint64_t threads = (uint64_t)how->threads[0] * how->threads[1] * how->threads[2];
    if (!threads || threads > 1024 || how->threads[2] > 64 || !how->grid[0] || how->grid[0] > 0x7FFFFFFF || !how->grid[1] || how->grid[1] > 65535
        || !how->grid[2] || how->grid[2] > 65535 || how->attribute_count || how->shared || extra) return INVALID_VALUE;
    if (!code->loaded) MAY_BE_UNSAFE; /* the first launch loads the code */
    code->loaded = 1;
    operation *work = give(queue, (operation){.kind = LAUNCH, .code = code});
    memcpy(work->grid, how->grid, 12);
    memcpy(work->threads, how->threads, 12);
    work->parameters = calloc((size_t)code->count + 1, PARAMETER_SIZE);
    for (int k = 0; k < code->count; k++) memcpy(work->parameters + k * PARAMETER_SIZE, parameters[k], (size_t)code->sizes[k]);
    return SUCCESS;
}
result cuLaunchKernel(kernel *code, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz,
                      uint32_t shared, void *handle, void **parameters, void **extra) {
    configuration how = {{gx, gy, gz}, {bx, by, bz}, shared, handle, NULL, 0};
    return cuLaunchKernelEx(&how, code, parameters, extra);
}

/* ---- devices, contexts and memory, as the API has them --------------------------------------------------------------------- */

result cuInit(unsigned flags) { (void)flags; return devices ? SUCCESS : NO_DEVICE; }
result cuDriverGetVersion(int *out) { *out = 13000; return SUCCESS; }
result cuGetErrorName(result code, const char **out) {
    switch (code) {
        case OUT_OF_MEMORY: *out = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_VALUE: *out = "CUDA_ERROR_INVALID_VALUE"; break;
        case INVALID_CONTEXT: *out = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case INVALID_HANDLE: *out = "CUDA_ERROR_INVALID_HANDLE"; break;
        case ILLEGAL_ADDRESS: *out = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case MISALIGNED_ADDRESS: *out = "CUDA_ERROR_MISALIGNED_ADDRESS"; break;
        case CAPTURE_UNSUPPORTED: *out = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        case CAPTURE_INVALIDATED: *out = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
        case CAPTURE_ISOLATION: *out = "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"; break;
        case CAPTURE_IMPLICIT: *out = "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"; break;
        default: *out = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
result cuGetErrorString(result code, const char **out) { return cuGetErrorName(code, out); }

result cuDeviceGetCount(int *out) { *out = devices; return SUCCESS; }
result cuDeviceGet(int *out, int number) { *out = number; return number < devices ? SUCCESS : INVALID_DEVICE; }
result cuDeviceGetName(char *out, int size, int device) { snprintf(out, (size_t)size, "Emulated GPU %d", device); return SUCCESS; }
result cuDeviceGetUuid_v2(unsigned char *out, int device) { memset(out, device, 16); return SUCCESS; }
result cuDeviceTotalMem_v2(size_t *out, int device) { (void)device; *out = memory_size; return SUCCESS; }
result cuDeviceGetAttribute(int *out, int which, int device) {
    (void)device;
    switch (which) {
        case 1: *out = 1024; break;          /* threads per block */
        case 2: case 3: *out = 1024; break;  /* block x, y */
        case 4: *out = 64; break;            /* block z */
        case 5: *out = 0x7FFFFFFF; break;    /* grid x */
        case 6: case 7: *out = 65535; break; /* grid y, z */
        case 8: *out = 49152; break;         /* shared memory per block */
        case 10: *out = 32; break;           /* warp */
        case 16: *out = 2; break;            /* multiprocessors */
        case 41: *out = 1; break;            /* unified addressing */
        case 75: *out = 9; break;            /* compute capability */
        case 76: *out = 0; break;
        default: *out = 0;
    }
    return SUCCESS;
}
result cuDeviceCanAccessPeer(int *out, int device, int peer) { (void)device, (void)peer; *out = 0; return SUCCESS; }
result cuDevicePrimaryCtxRetain(context **out, int device) {
    if (device < 0 || device >= devices) return INVALID_DEVICE;
    LOCKED;
    MAY_BE_UNSAFE;
    contexts[device].device = device;
    *out = &contexts[device];
    return SUCCESS;
}
result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
result cuDevicePrimaryCtxReset_v2(int device) { (void)device; LOCKED; run_everything(); return SUCCESS; }
result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { (void)device; *flags = 0, *active = 1; return SUCCESS; }

result cuCtxGetCurrent(context **out) { *out = here(); return SUCCESS; }
result cuCtxSetCurrent(context *it) { current[depth] = it; return SUCCESS; }
result cuCtxPushCurrent_v2(context *it) { if (depth == 63) return INVALID_VALUE; current[++depth] = it; return SUCCESS; }
result cuCtxPopCurrent_v2(context **out) {
    if (!here()) return INVALID_CONTEXT;
    *out = here();
    if (depth) depth--; else current[0] = NULL;
    return SUCCESS;
}
result cuCtxGetDevice(int *out) { if (!here()) return INVALID_CONTEXT; *out = here()->device; return SUCCESS; }
result cuCtxSynchronize(void) {
    LOCKED;
    if (!here()) return INVALID_CONTEXT;
    for (stream *each = streams; each; each = each->next) /* even in a relaxed mode */
        if (each->captured && each->owner == here()) return spoil(each->captured, CAPTURE_UNSUPPORTED);
    for (stream *each = streams; each; each = each->next) if (each->owner == here()) run_all(each);
    return (result)fault;
}

result cuMemAlloc_v2(address *out, size_t size) {
    LOCKED;
    MAY_BE_UNSAFE;
    return fault ? (result)fault : here() ? allocate(here()->device, size, out) : INVALID_CONTEXT;
}
result cuMemAllocManaged(address *out, size_t size, unsigned flags) { (void)flags; return cuMemAlloc_v2(out, size); }
result cuMemFree_v2(address start) { LOCKED; MAY_BE_UNSAFE; return fault ? (result)fault : release(start); }
result cuMemGetInfo_v2(size_t *unused, size_t *total) {
    LOCKED;
    if (!here()) return INVALID_CONTEXT;
    MAY_BE_UNSAFE;
    *total = memory_size, *unused = memory_size - used[here()->device];
    return SUCCESS;
}
result cuMemHostAlloc(void **out, size_t size, unsigned flags) {
    (void)flags;
    LOCKED;
    MAY_BE_UNSAFE;
    return here() ? allocate(PINNED, size, (address *)out) : INVALID_CONTEXT;
}
result cuMemFreeHost(void *start) { LOCKED; MAY_BE_UNSAFE; return fault ? (result)fault : release((address)start); }
result cuMemGetAddressRange_v2(address *start, size_t *size, address of) {
    LOCKED;
    block *found = find(of);
    if (!found) return INVALID_VALUE;
    if (start) *start = found->start;
    if (size) *size = found->size;
    return SUCCESS;
}
result cuPointerGetAttribute(void *out, int which, address of) {
    LOCKED;
    block *found = find(of);
    if (!found || (found->device == PINNED && which != 2)) return INVALID_VALUE;
    switch (which) {
        case 1: *(context **)out = &contexts[found->device]; return SUCCESS;
        case 2: *(unsigned *)out = found->device == PINNED ? 1 : 2; return SUCCESS; /* host, device */
        case 3: *(address *)out = of; return SUCCESS;
        case 9: *(int *)out = found->device; return SUCCESS;
        case 8: *(unsigned *)out = 0; return SUCCESS; /* not managed */
        default: return INVALID_VALUE;
    }
}

result cuGetProcAddress_v2(const char *symbol, void **out, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    Dl_info us;
    dladdr((void *)emulator_set, &us);
    void *self = dlopen(us.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    const char *const forms[] = {"%s_v2", "%s"};
    char name[256];
    *out = NULL;
    for (int k = 0; k < 2 && !*out; k++) {
        snprintf(name, sizeof name, forms[k], symbol);
        *out = dlsym(self, name);
    }
    if (status) *status = *out ? 0 : 1;
    return *out ? SUCCESS : NOT_FOUND;
}
