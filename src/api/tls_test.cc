// SPDX-License-Identifier: Apache-2.0
// The same server behind TLS, with a certificate made for the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <filesystem>

#include "api/test_server.h"

namespace puna::api {
namespace {

using testing::HasSubstr;

// Writes a self-signed certificate and its key as PEM files.
void make_certificate(const std::string& cert_path, const std::string& key_path) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* cert = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -60);
  X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
  X509_set_pubkey(cert, key);
  X509_NAME* name = X509_get_subject_name(cert);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(cert, name);
  CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
  FILE* file = std::fopen(cert_path.c_str(), "w");
  CHECK(file != nullptr && PEM_write_X509(file, cert) == 1);
  std::fclose(file);
  file = std::fopen(key_path.c_str(), "w");
  CHECK(file != nullptr &&
        PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  std::fclose(file);
  X509_free(cert);
  EVP_PKEY_free(key);
}

// Sends `request` over TLS; returns everything until the server closes.
std::string ask_tls(uint16_t port, const std::string& request) {
  TestClient tcp(port);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* tls = SSL_new(context);
  SSL_set_fd(tls, tcp.fd());
  std::string answer;
  if (SSL_connect(tls) == 1) {
    SSL_write(tls, request.data(), static_cast<int>(request.size()));
    char buffer[4096];
    for (int got = 0; (got = SSL_read(tls, buffer, sizeof(buffer))) > 0;) {
      answer.append(buffer, static_cast<size_t>(got));
    }
  }
  SSL_free(tls);
  SSL_CTX_free(context);
  return answer;
}

struct TlsTest : ServerTest {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("puna_tls_" + std::to_string(::getpid()));
  void SetUp() override {
    std::filesystem::create_directories(folder);
    config.tls_cert = folder / "cert.pem";
    config.tls_key = folder / "key.pem";
    make_certificate(config.tls_cert, config.tls_key);
  }
  void TearDown() override {
    ServerTest::TearDown();
    std::filesystem::remove_all(folder);
  }
};

TEST_F(TlsTest, AnswersAndStreams) {
  start();
  EXPECT_THAT(
      ask_tls(server->port(), TestClient::request("GET", "/health", {}, "Connection: close\r\n")),
      HasSubstr("200 OK"));
  const std::string stream = ask_tls(
      server->port(),
      TestClient::request("POST", "/v1/completions",
                          R"({"prompt":"abc","max_tokens":300,"ignore_eos":true,"stream":true})",
                          "Connection: close\r\n"));
  EXPECT_THAT(stream, HasSubstr("data: [DONE]"));
}

TEST_F(TlsTest, PlainAndSilentClientsDoNotHurt) {
  config.header_timeout_ms = 300;
  start();
  TestClient plain(server->port());
  EXPECT_EQ(plain.get("/health").status, 0);
  TestClient silent(server->port());
  EXPECT_TRUE(silent.closed_by_server());
  EXPECT_THAT(
      ask_tls(server->port(), TestClient::request("GET", "/health", {}, "Connection: close\r\n")),
      HasSubstr("200 OK"));
}

TEST_F(TlsTest, WrongFilesAreNamed) {
  std::swap(config.tls_cert, config.tls_key);
  chat_template = nullptr;
  backend = std::make_unique<SlowBackend>(limits);
  engine = std::make_unique<engine::Engine>(engine_config, *backend, tokenizer, clock);
  auto result = Server::start(config, served());
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message(), HasSubstr("--tls-cert " + config.tls_cert));
}

}  // namespace
}  // namespace puna::api
