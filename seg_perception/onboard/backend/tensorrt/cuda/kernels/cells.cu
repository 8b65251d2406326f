// Class maps: their cells on the pixels of the map, and whether they are usable.
//
// class_cells, counted: 1 byte written per pixel, cells read through the cache (25.6 kB of a 160 x 160 grid), about 4
// integer operations per pixel and about 40 of float64 per column and row of a tile, 96 for 2048 pixels.

#include "records.cuh"
#include "samples.cuh"

// Cells that are no class: contract.py.
constexpr unsigned char NO_CLASS = 255, FAULTY_CELL = 254;

// The class of each pixel, as backend/host/cells.py at_output. class_map: uint8 [B, grid_height, grid_width]; classes +
// z * map_pitch: uint8 [map_height, map_width], every pixel is written. z = camera of the batch.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, 8) class_cells(
    const unsigned char *__restrict__ class_map, const Camera *__restrict__ cameras, int grid_height, int grid_width,
    int network_width, int network_height, unsigned long long map_pitch, unsigned char *__restrict__ classes) {
    __shared__ Samples samples;
    const Camera camera = cameras[blockIdx.z];
    class_map += static_cast<unsigned long long>(blockIdx.z) * grid_height * grid_width;
    classes += blockIdx.z * map_pitch;
    for (int index = blockIdx.x; index < tile_count(camera); index += gridDim.x) {
        const Tile tile = tile_at(index, camera);
        fill_samples(camera, tile, grid_height, grid_width, network_width, network_height, samples);
        const int width = min(TILE_WIDTH, camera.map_width - tile.left);
        const int height = min(TILE_HEIGHT, camera.map_height - tile.top);
        for (int pixel = threadIdx.x; pixel < TILE_WIDTH * height; pixel += TILE_THREADS) {
            const int x = pixel % TILE_WIDTH, y = pixel / TILE_WIDTH;
            if (x < width)
                classes[static_cast<long long>(tile.top + y) * camera.map_width + tile.left + x] =
                    class_map[samples.down[y].cell * grid_width + samples.across[x].cell];
        }
    }
}

// Say in `faults` [B] what is wrong with a class map: uint8 [B, cells]. z = camera of the batch.
extern "C" __global__ void check_classes(
    const unsigned char *__restrict__ class_map, int cells, int classes, unsigned *__restrict__ faults) {
    class_map += static_cast<unsigned long long>(blockIdx.z) * cells;
    unsigned found = 0;
    for (int cell = blockIdx.x * blockDim.x + threadIdx.x; cell < cells; cell += gridDim.x * blockDim.x) {
        const unsigned char value = class_map[cell];
        if (value == FAULTY_CELL)
            found |= FAULTY_CLASS;
        else if (value >= classes && value != NO_CLASS)
            found |= UNKNOWN_CLASS;
    }
    if (found) atomicOr(&faults[blockIdx.z], found);
}
