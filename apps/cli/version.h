// SPDX-License-Identifier: MIT
#pragma once

#ifndef KVSIEVE_VERSION
#define KVSIEVE_VERSION "0.1.0"
#endif
