//go:build tools

// Package tools has `go mod tidy` keep in go.mod and go.sum what the program needs.
package tools

import _ "github.com/hashicorp/consul"
