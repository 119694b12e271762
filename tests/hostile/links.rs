//! Messages of links, calls and the SDK that anybody on the account can send.
