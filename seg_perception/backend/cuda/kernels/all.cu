// Every kernel of the package: compiled at once, into one module.

#include "letterbox.cu"
