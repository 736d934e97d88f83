/* The host interface is declared here and defined in Extension/; SwiftPM wants one source file in a C target. */
#include "bdr_host.h"
