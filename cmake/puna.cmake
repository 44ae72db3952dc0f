# SPDX-License-Identifier: Apache-2.0
# Build rules shared by every folder: one library, one test program and any fuzz targets per folder.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
find_package(OpenSSL 3.0 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)

add_library(puna_options INTERFACE)
target_include_directories(puna_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
# -ffp-contract=off: the compiler may not fuse a*b+c, so scalar code gives the same bits everywhere.
# Clang counts -Wsign-conversion to -Wconversion, GCC does not; both shall say the same.
target_compile_options(puna_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
  -Wall -Wextra -Wconversion $<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion> -Wshadow -Wnon-virtual-dtor -Werror
  -ffp-contract=off>)
target_link_libraries(puna_options INTERFACE Threads::Threads)
if(PUNA_SANITIZE)
  add_compile_options(-fsanitize=${PUNA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${PUNA_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-error=maybe-uninitialized -Wno-error=tsan)
  endif()
endif()

# The runtime is linked statically and finds the driver when it is first called; cuBLASLt is opened at run time
# (src/kernels/cuda/cublas_lt.h). So the program starts on machines without either.
if(PUNA_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPUs to compile for; 80 carries PTX for newer ones")
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know how CUDA 13 spells C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  find_package(CUDAToolkit 13.0 REQUIRED)
endif()

# Every preset but dev and those for CUDA compiles several sources as one, and so do the tests of `./dev test`: most of their time goes into
# headers. Sources with options of their own stay apart; names in anonymous namespaces must differ within a folder.
function(puna_unity target size)
  if(size GREATER 0)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${size})
    # GCC takes an included source for a header, whose types others could see.
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()

# puna_library(NAME SRCS a.cc ... DEPS folder ... [PRIVATE_DEPS lib ...]) -> target puna_NAME
function(puna_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(puna_${name} STATIC ${ARG_SRCS})
  puna_unity(puna_${name} "${PUNA_UNITY}")
  target_link_libraries(puna_${name} PUBLIC puna_options ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  # What neither computes nor stands on the path of a token gets the plain optimisation, in two thirds of the time.
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND name MATCHES "^(plan|route|check|families|load|cli)$")
    target_compile_options(puna_${name} PRIVATE -O2)
  endif()
  # Sanitized code costs more to compile than to run, but for what computes. Its templates take four times as long
  # with checks that a bad address would fail in the address sanitizer too.
  if(PUNA_SANITIZE AND name MATCHES "^(quant|kernels|model|tokenizer|kv|engine)$")
    target_compile_options(puna_${name} PRIVATE -O1)
    if(name STREQUAL "kernels" AND PUNA_SANITIZE MATCHES "undefined")
      target_compile_options(puna_${name} PRIVATE -fno-sanitize=null,alignment)
    endif()
  endif()
  if(PUNA_FUZZ AND name MATCHES "^(base|formats|tokenizer|api)$") # what the fuzz targets explore
    target_compile_options(puna_${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# puna_test(NAME SRCS a_test.cc ... DEPS lib ... [LABELS fast|slow]) -> program NAME_test, each case a CTest case.
function(puna_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT PUNA_TESTS)
    return()
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS fast)
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name}_test ${ARG_SRCS})
  puna_unity(${name}_test "${PUNA_TEST_UNITY}")
  target_link_libraries(${name}_test PRIVATE ${ARG_DEPS} puna_options GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE
    PUNA_GOLDEN_DIR="${CMAKE_SOURCE_DIR}/tests/golden" PUNA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Quicker to compile, and GCC 12 warns of what is not there at -O2 and -O3 (its bug 105651, for one).
    target_compile_options(${name}_test PRIVATE -O1)
  endif()
  include(GoogleTest)
  gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 300)
endfunction()

# puna_gpu_test(NAME SRCS a_test.cc ... DEPS lib ...) -> program NAME_test, for a machine with a GPU:
# tools/gpu/run.sh runs it there. CTest does not know it.
function(puna_gpu_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(NOT PUNA_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name}_test ${ARG_SRCS})
  target_link_libraries(${name}_test PRIVATE ${ARG_DEPS} puna_options GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE PUNA_GOLDEN_DIR="tests/golden")
  set_target_properties(${name}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu)
endfunction()

# puna_fuzz(NAME SRCS a_fuzz.cc DEPS lib ...) -> program NAME_fuzz; seeds in tests/fuzz/corpus/NAME.
# Each target also runs for PUNA_FUZZ_SECONDS as a CTest case with the label fuzz; `fuzz` builds them all.
set(PUNA_FUZZ_SECONDS 10 CACHE STRING "How long each fuzz target runs in the test suite")
function(puna_fuzz name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(NOT PUNA_FUZZ)
    return()
  endif()
  if(NOT TARGET fuzz)
    add_custom_target(fuzz)
  endif()
  add_executable(${name}_fuzz ${ARG_SRCS})
  add_dependencies(fuzz ${name}_fuzz)
  target_link_libraries(${name}_fuzz PRIVATE ${ARG_DEPS} puna_options)
  target_compile_options(${name}_fuzz PRIVATE -fsanitize=fuzzer-no-link)
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  set(scratch ${CMAKE_BINARY_DIR}/fuzz_corpus/${name})
  file(MAKE_DIRECTORY ${scratch})
  add_test(NAME fuzz.${name} COMMAND ${name}_fuzz -max_total_time=${PUNA_FUZZ_SECONDS} -timeout=10
    -rss_limit_mb=2048 -print_final_stats=1 ${scratch} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()

enable_testing()
