//! A linked actor: large answers, many names, crafted keys.
