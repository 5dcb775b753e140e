package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	jose "gopkg.in/go-jose/go-jose.v2"
	"gopkg.in/go-jose/go-jose.v2/jwt"
	"k8s.io/client-go/util/keyutil"
)

// signToken prints a token with the claims read from standard input, signed as kube-apiserver signs its own.
//
// TokenRequest refuses life times under ten minutes, so a token that has already expired can only be made here.
func signToken(args []string) {
	flags := flag.NewFlagSet("sign-token", flag.ExitOnError)
	keyFile := flags.String("key-file", "", "PEM file with the private key of the API server's ServiceAccount issuer")
	keyID := flags.String("key-id", "", "value of the token's kid header, as in a token of that API server")
	_ = flags.Parse(args)

	token, err := sign(*keyFile, *keyID)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sign-token: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(token)
}

func sign(keyFile, keyID string) (string, error) {
	key, err := keyutil.PrivateKeyFromFile(keyFile)
	if err != nil {
		return "", fmt.Errorf("reading --key-file: %w", err)
	}
	var claims map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&claims); err != nil {
		return "", fmt.Errorf("reading claims from standard input: %w", err)
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", keyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).CompactSerialize()
}
