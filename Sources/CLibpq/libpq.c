/* libpq is declared in the header and linked; SwiftPM wants one source file in a C target. */
#include "bdr_libpq.h"
