// SPDX-License-Identifier: Apache-2.0
// PUNA_SANITIZED: 1 in a build with the address or the thread sanitizer, which bring an operator
// new and a malloc of their own. GCC and Clang tell so in different ways.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PUNA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PUNA_SANITIZED 1
#endif
#endif
#ifndef PUNA_SANITIZED
#define PUNA_SANITIZED 0
#endif
