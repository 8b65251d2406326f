// Every kernel of the package: compiled at once, into one module.

#include "cells.cu"
#include "letterbox.cu"
#include "paint.cu"
#include "select.cu"
