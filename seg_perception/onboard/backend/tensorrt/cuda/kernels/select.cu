// Which detections are kept and under which numbers: backend/host/select.py on the GPU, with its choice in every case,
// since each step has the same float type. And what follows painting: leaving out instances that are hardly seen.
//
// One block per camera. Suppression across classes asks for every row whether a better one that stays suppresses it;
// rows are decided in rounds, each when all better rivals are. There are as many rounds as rivals in the longest chain,
// one or two in real images.

#include "records.cuh"

namespace selection {

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 256;  // paint.py has the same
constexpr int WARPS = THREADS / 32;
constexpr int CACHED = 1024;          // rows whose boxes are computed once; those of others each time
constexpr int NO_GROUP = -1;          // classes.py
constexpr double IGNORED_SHARE = 0.5;  // backend/host/select.py

// What a row's entry in `numbers` says until it has a number.
constexpr unsigned short OUT = 0, OPEN = 1, KEPT = 2;

// A row that may be kept: its box in camera pixels. Others have no group.
struct alignas(8) Candidate {
    float x1, y1, x2, y2;
    int label, group;
};

// What one camera's rows are selected by.
struct Task {
    const float *boxes, *scores;
    const int *labels;
    const float *thresholds;
    const int *groups;
    int classes;
    double scale_x, scale_y;  // network pixels per camera pixel
    // Threads see what others decided before the last barrier; what they see of later decisions is right as well.
    volatile unsigned short *numbers;
    Candidate *cached;
};

// ResizeGeometry.boxes_to_camera for one coordinate.
__device__ inline float to_camera(float value, int padding, double scale, int limit) {
    const double position = (static_cast<double>(value) - padding) / scale;
    return static_cast<float>(min(max(position, 0.0), static_cast<double>(limit)));
}

// Whether a row passes its threshold. A broken model may give a class that there is not: the host reports that, and
// here nothing is read of it.
__device__ inline bool passes(const Task &task, int row) {
    const float score = task.scores[row];
    const int label = task.labels[row];
    return score > 0 && 0 <= label && label < task.classes && score >= task.thresholds[label];
}

__device__ inline Candidate candidate_of(const Task &task, const Camera &camera, int row) {
    if (!passes(task, row)) return {0, 0, 0, 0, 0, NO_GROUP};
    const float *box = task.boxes + 4ll * row;
    const int label = task.labels[row];
    return {
        to_camera(box[0], camera.left, task.scale_x, camera.width),
        to_camera(box[1], camera.top, task.scale_y, camera.height),
        to_camera(box[2], camera.left, task.scale_x, camera.width),
        to_camera(box[3], camera.top, task.scale_y, camera.height),
        label,
        task.groups[label],
    };
}

__device__ inline Candidate candidate_at(const Task &task, const Camera &camera, int row) {
    return row < CACHED ? task.cached[row] : candidate_of(task, camera, row);
}

__device__ inline double area_of(const Candidate &box) {
    return max(static_cast<double>(box.x2) - box.x1, 0.0) * max(static_cast<double>(box.y2) - box.y1, 0.0);
}

// Whether two boxes overlap by more than the limit: core/boxes.box_iou.
__device__ inline bool overlap(const Candidate &a, const Candidate &b, double limit) {
    const float x1 = max(a.x1, b.x1), y1 = max(a.y1, b.y1), x2 = min(a.x2, b.x2), y2 = min(a.y2, b.y2);
    // Most pairs are apart, and float64 is slow; an IoU of 0 is not above any limit.
    if (!(x1 < x2 && y1 < y2)) return false;
    const double shared = (static_cast<double>(x2) - x1) * (static_cast<double>(y2) - y1);
    const double total = area_of(a) + area_of(b) - shared;
    return total > 0 && shared / total > limit;
}

// Decide a row, or leave it open while a better rival is.
__device__ inline unsigned short decided(const Task &task, const Camera &camera, int row) {
    const Candidate mine = candidate_at(task, camera, row);
    unsigned short state = KEPT;
    if (mine.group == NO_GROUP) return state;
    for (int better = 0; better < row; ++better) {
        const Candidate other = candidate_at(task, camera, better);
        if (other.group != mine.group || other.label == mine.label) continue;
        const unsigned short rival = task.numbers[better];
        if (rival == OUT || !overlap(mine, other, camera.group_iou)) continue;
        if (rival == KEPT) return OUT;
        state = OPEN;
    }
    return state;
}

// IgnoreMask.share above IGNORED_SHARE.
__device__ inline bool ignored(const Candidate &box, const Camera &camera) {
    if (!camera.ignore) return false;
    const double *sums = reinterpret_cast<const double *>(camera.ignore);
    const int columns = camera.ignore_width, rows = camera.ignore_height;
    const double scale_x = static_cast<double>(columns) / camera.width;
    const double scale_y = static_cast<double>(rows) / camera.height;
    const int x1 = static_cast<int>(box.x1 * scale_x), y1 = static_cast<int>(box.y1 * scale_y);  // rounded down
    const int x2 = min(static_cast<int>(ceil(box.x2 * scale_x)), columns);
    const int y2 = min(static_cast<int>(ceil(box.y2 * scale_y)), rows);
    const double *upper = sums + (columns + 1ll) * y1, *lower = sums + (columns + 1ll) * y2;
    const double inside = lower[x2] - upper[x2] - lower[x1] + upper[x1];
    const long long cells = static_cast<long long>(x2 - x1) * (y2 - y1);
    return !(inside / static_cast<double>(max(cells, 1ll)) <= IGNORED_SHARE);
}

// The next numbers for those threads of the block that keep theirs, in their order; 0 for the others. `last` is the
// last number given before, and after. All threads together; `found` is shared, [WARPS].
__device__ inline unsigned short renumbered(bool keeps, int &last, int *found) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned keeping = __ballot_sync(ALL, keeps);
    if (lane == 0) found[warp] = __popc(keeping);
    __syncthreads();
    int number = last + 1 + __popc(keeping & ((1u << lane) - 1));
    for (int other = 0; other < WARPS; ++other) {
        if (other < warp) number += found[other];
        last += found[other];
    }
    __syncthreads();
    return keeps ? static_cast<unsigned short>(number) : 0;
}

}  // namespace selection

// Number the rows that are kept: 1..N in row order, 0 for the others. One block per camera z of the batch.
//
// boxes: [B, rows, 4], network pixels. scores, labels: [B, rows], best first. thresholds: [B, classes], lowest score
// of each class. groups: [classes], road group of each class or NO_GROUP. numbers, areas: [B, rows]; faults: [B]. Areas
// and faults become 0.
extern "C" __global__ void __launch_bounds__(selection::THREADS) select_rows(
    const float *__restrict__ boxes, const float *__restrict__ scores, const int *__restrict__ labels,
    const Camera *__restrict__ cameras, const float *__restrict__ thresholds, const int *__restrict__ groups,
    int classes, int rows, unsigned short *numbers, int *__restrict__ areas, unsigned *__restrict__ faults) {
    using namespace selection;
    __shared__ Candidate cached[CACHED];
    __shared__ int found[WARPS];
    const long long begin = static_cast<long long>(blockIdx.z) * rows;
    const Camera camera = cameras[blockIdx.z];
    const int thread = threadIdx.x;
    const Task task = {
        boxes + begin * 4,
        scores + begin,
        labels + begin,
        thresholds + static_cast<long long>(blockIdx.z) * classes,
        groups,
        classes,
        static_cast<double>(camera.content_width) / camera.width,
        static_cast<double>(camera.content_height) / camera.height,
        numbers + begin,
        cached,
    };
    if (thread == 0) faults[blockIdx.z] = 0;
    for (int row = thread; row < rows; row += THREADS) {
        areas[begin + row] = 0;
        task.numbers[row] = passes(task, row) ? OPEN : OUT;
        if (row < CACHED) cached[row] = candidate_of(task, camera, row);
    }
    bool open = true;
    while (__syncthreads_or(open)) {
        open = false;
        for (int row = thread; row < rows; row += THREADS) {
            if (task.numbers[row] != OPEN) continue;
            const unsigned short state = decided(task, camera, row);
            if (state != OPEN) task.numbers[row] = state;
            open |= state == OPEN;
        }
    }
    int last = 0;
    for (int first = 0; first < rows; first += THREADS) {
        const int row = first + thread;
        const bool kept =
            row < rows && task.numbers[row] == KEPT && !ignored(candidate_at(task, camera, row), camera);
        const unsigned short number = renumbered(kept, last, found);
        if (row < rows) task.numbers[row] = number;
    }
}

// Leave out instances with fewer than min_pixels visible pixels; with `renumber`, number the others 1..N in their order.
// One block per camera z of the batch.
//
// numbers, areas: [B, rows]. gate: [B]; where an instance was left out it becomes 1 and the areas 0, so that the map is
// painted again; else 0.
extern "C" __global__ void __launch_bounds__(selection::THREADS) prune(
    const Camera *__restrict__ cameras, int rows, int renumber, unsigned short *__restrict__ numbers,
    int *__restrict__ areas, unsigned *__restrict__ gate) {
    using namespace selection;
    __shared__ int found[WARPS];
    const int min_pixels = cameras[blockIdx.z].min_pixels;
    const int thread = threadIdx.x;
    numbers += static_cast<long long>(blockIdx.z) * rows;
    areas += static_cast<long long>(blockIdx.z) * rows;
    bool small = false;
    for (int row = thread; row < rows; row += THREADS) small |= numbers[row] && areas[row] < min_pixels;
    const bool any = __syncthreads_or(small);
    if (thread == 0) gate[blockIdx.z] = any;
    if (!any) return;
    int last = 0;
    for (int first = 0; first < rows; first += THREADS) {
        const int row = first + thread;
        const bool kept = row < rows && numbers[row] && areas[row] >= min_pixels;
        const unsigned short number = renumbered(kept, last, found);
        if (row >= rows) continue;
        if (renumber || !kept) numbers[row] = number;
        areas[row] = 0;
    }
}
