//! The kinds of messages: one number and one name each.

use std::fmt;

use super::error::WireError;

/// Makes the enum and all that follows from its numbers out of one table.
macro_rules! kinds {
    ($($kind:ident = $number:literal, $name:literal;)*) => {
        /// Kind of a message. Its number is the second byte of the message.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $(
                #[doc = concat!("Number ", $number, ", ", $name, ".")]
                $kind = $number,
            )*
        }

        impl Kind {
            /// All kinds, by their numbers.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// How logs and errors call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }
        }

        impl TryFrom<u8> for Kind {
            type Error = WireError;

            fn try_from(number: u8) -> Result<Self, WireError> {
                match number {
                    $($number => Ok(Kind::$kind),)*
                    other => Err(WireError::Kind(other)),
                }
            }
        }
    };
}

kinds! {
    Frame = 1, "frame";
    BootstrapRequest = 2, "bootstrap request";
    BootstrapDeltas = 3, "bootstrap deltas";
    AnswerEnd = 4, "answer end";
    Heartbeat = 5, "heartbeat";
    Fragment = 6, "fragment";
    Compare = 7, "compare";
    RangeSplits = 8, "range splits";
    Fetch = 9, "fetch";
    Unknown = 10, "unknown";
    FramesRequest = 11, "frames request";
    FramesGone = 12, "frames gone";
    Hello = 13, "hello";
    Welcome = 14, "welcome";
    Ack = 15, "ack";
    DigestRequest = 16, "digest request";
    Sketch = 17, "sketch";
    SketchRequest = 18, "sketch request";
    Reconcile = 19, "reconcile";
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> u8 {
        kind as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
