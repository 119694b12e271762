//! What the server does with records, in its own language: all of a script happens at once.

use redis::{cmd, Cmd};

use crate::key::Keys;
use crate::part::Part;

/// A script that takes the keys of sections; for each how many records are of it; and then the records, each as its id and
/// its value. It answers with a number.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

/// Writes what is larger than what is there. Answers how many records were smaller.
///
/// `<` compares text as people of some place sort it, so bytes are compared: mostly the first eight say it, the time of a
/// stamp. Of values that are alike for long the place where they differ is found in longer and longer pieces: equal
/// ones are the same object in Lua. Where all are written the arguments are handed on as they are.
const WRITE: &str = "\
local byte, sub = string.byte, string.sub
local function larger_after(new, old, at)
  local shorter, step, growing = math.min(#new, #old), 64, true
  while at <= shorter do
    local till = math.min(at + step - 1, shorter)
    if sub(new, at, till) == sub(old, at, till) then
      at = till + 1
      if growing then step = math.min(step * 4, 65536) end
    elseif step > 16 then
      growing = false
      step = step / 4
    else
      for i = at, till do
        local a, b = byte(new, i), byte(old, i)
        if a ~= b then return a > b end
      end
    end
  end
  return #new > #old
end
local function larger(new, old)
  if #new < 8 or #old < 8 then return larger_after(new, old, 1) end
  local a1, a2, a3, a4, a5, a6, a7, a8 = byte(new, 1, 8)
  local b1, b2, b3, b4, b5, b6, b7, b8 = byte(old, 1, 8)
  if a1 ~= b1 then return a1 > b1 end
  if a2 ~= b2 then return a2 > b2 end
  if a3 ~= b3 then return a3 > b3 end
  if a4 ~= b4 then return a4 > b4 end
  if a5 ~= b5 then return a5 > b5 end
  if a6 ~= b6 then return a6 > b6 end
  if a7 ~= b7 then return a7 > b7 end
  if a8 ~= b8 then return a8 > b8 end
  return larger_after(new, old, 9)
end
local given, smaller, last = ARGV, 0, #KEYS
for k, key in ipairs(KEYS) do
  local count = tonumber(given[k])
  local before = last
  last = before + count * 2
  if count == 0 then
  elseif redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, unpack(given, before + 1, last))
  else
    local ids, write, kept = {}, nil, 0
    for i = 1, count do ids[i] = given[before + i * 2 - 1] end
    local held = redis.call('HMGET', key, unpack(ids))
    for i = 1, count do
      local old, new = held[i], given[before + i * 2]
      if old and (old == new or not larger(new, old)) then
        if old ~= new then smaller = smaller + 1 end
        if not write then
          write, kept = {}, i * 2 - 2
          for j = 1, kept do write[j] = given[before + j] end
        end
      elseif write then
        write[kept + 1], write[kept + 2] = ids[i], new
        kept = kept + 2
      end
    end
    if not write then
      redis.call('HSET', key, unpack(given, before + 1, last))
    elseif kept > 0 then
      redis.call('HSET', key, unpack(write))
    end
  end
end
return smaller";

/// Removes what has still the value that is given.
const REMOVE: &str = "\
local given, removed, last = ARGV, 0, #KEYS
for k, key in ipairs(KEYS) do
  local count, ids, gone = tonumber(given[k]), {}, {}
  local before = last
  last = before + count * 2
  for i = 1, count do ids[i] = given[before + i * 2 - 1] end
  local held = count > 0 and redis.call('HMGET', key, unpack(ids)) or {}
  for i = 1, count do
    if held[i] == given[before + i * 2] then gone[#gone + 1] = ids[i] end
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  removed = removed + #gone
end
return removed";

impl Script {
    pub fn write() -> Self {
        Script::new(WRITE)
    }

    pub fn remove() -> Self {
        Script::new(REMOVE)
    }

    fn new(text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().into();
        Script { text, hash }
    }

    /// Calls it by its hash, which a server knows that has seen the text since it started.
    pub fn by_hash(&self, keys: &Keys, part: &Part<'_>) -> Cmd {
        call("EVALSHA", &self.hash, keys, part)
    }

    /// Calls it, and lets the server learn it.
    pub fn by_text(&self, keys: &Keys, part: &Part<'_>) -> Cmd {
        call("EVAL", self.text, keys, part)
    }

    /// Calls it with nothing: whether it may be called.
    pub fn probe(&self, key: &str) -> Cmd {
        let mut question = cmd("EVAL");
        question.arg(self.text).arg(1).arg(key).arg(0);
        question
    }
}

fn call(how: &str, script: &str, keys: &Keys, part: &Part<'_>) -> Cmd {
    let mut question = cmd(how);
    question.arg(script).arg(part.sections.len());
    for (section, _) in &part.sections {
        question.arg(keys.section(*section));
    }
    for (_, count) in &part.sections {
        question.arg(count);
    }
    for record in &part.records {
        question.arg(record.id).arg(record.value);
    }
    question
}
