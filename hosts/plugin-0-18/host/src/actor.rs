//! An actor that hands every call on to wasmcloud:keyvalue, and the answer back.

use anyhow::{anyhow, Result};
use wascap::prelude::KeyPair;

/// waPC 0.10, see the imports of `wapc::functions`. Addresses: texts below 1024, operation at 1024, argument at 4096,
/// answer at 1 MiB.
const SOURCE: &str = r#"
(module
  (import "wapc" "__guest_request" (func $request (param i32 i32)))
  (import "wapc" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wapc" "__console_log" (func $log (param i32 i32)))
  (import "wapc" "__host_response" (func $answer (param i32)))
  (import "wapc" "__host_response_len" (func $answer_len (result i32)))
  (import "wapc" "__guest_response" (func $respond (param i32 i32)))
  (import "wapc" "__guest_error" (func $fail (param i32 i32)))
  (import "wapc" "__host_error" (func $error (param i32)))
  (import "wapc" "__host_error_len" (func $error_len (result i32)))
  (memory (export "memory") 64)
  (data (i32.const 0) "default")
  (data (i32.const 16) "wasmcloud:keyvalue")
  (func (export "__guest_call") (param $operation i32) (param $argument i32) (result i32)
    (call $request (i32.const 1024) (i32.const 4096))
    (if (result i32)
      (call $call (i32.const 0) (i32.const 7) (i32.const 16) (i32.const 18)
        (i32.const 1024) (local.get $operation) (i32.const 4096) (local.get $argument))
      (then
        (call $answer (i32.const 1048576))
        (call $respond (i32.const 1048576) (call $answer_len))
        (i32.const 1))
      (else
        (call $error (i32.const 1048576))
        (call $fail (i32.const 1048576) (call $error_len))
        (i32.const 0)))))
"#;

/// Its id and its signed module.
pub fn new(name: &str) -> Result<(String, Vec<u8>)> {
    let keys = KeyPair::new_module();
    let id = keys.public_key();
    let signed = wascap::wasm::sign_buffer_with_claims(
        name.to_owned(),
        wat::parse_str(SOURCE)?,
        keys,
        KeyPair::new_account(),
        None,
        None,
        vec!["wasmcloud:keyvalue".to_owned()],
        vec![],
        false,
        Some(1),
        Some("1.0".to_owned()),
        None,
    );
    Ok((id, signed.map_err(|error| anyhow!("{}", error))?))
}
