// SPDX-License-Identifier: Apache-2.0
// The one door to Asio in this folder. Costs seconds to compile: include it in few files.
#pragma once

// Clang before 17 has C++20 coroutines, but not yet the macro by which libstdc++ and Asio know it.
#if defined(__clang__) && !defined(__cpp_impl_coroutine)
#define __cpp_impl_coroutine 201902L  // NOLINT(bugprone-reserved-identifier)
#endif

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace puna::load {

namespace asio = boost::asio;
using boost::system::error_code;

}  // namespace puna::load
