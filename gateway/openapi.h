/* packaging/openapi.json, built in. */
#ifndef HOLDFAST_GATEWAY_OPENAPI_H
#define HOLDFAST_GATEWAY_OPENAPI_H

#include "raftstore/base/bytes.h"

struct bytes openapi_document(void); /* Lives for ever. */

#endif
