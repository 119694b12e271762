//! A stranger on the NATS account, without the seed: recordings, forged notices, floods.
