package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"berth.dev/berth/engine/access"
)

// tokenEndpoints make, list and delete tokens on a running server, and sign
// client certificates.
type tokenEndpoints struct {
	tokens *access.Tokens
	// dataDir has the authority that signs certificates.
	dataDir string
	log     *slog.Logger
}

// register adds the paths, which are for administrators.
func (e *tokenEndpoints) register(mux *http.ServeMux) {
	for path, h := range map[string]http.HandlerFunc{
		"GET /berth/v1/tokens": e.list, "POST /berth/v1/tokens": e.create, "DELETE /berth/v1/tokens/{name}": e.delete,
		"POST /berth/v1/certificates": e.certificate,
	} {
		mux.Handle(path, requireUser(h, access.Admin))
	}
}

// newToken is what is asked for, and newTokenAnswer the only place where a
// token is ever shown.
type newToken struct {
	Name string      `json:"name"`
	Role access.Role `json:"role"`
}

type newTokenAnswer struct {
	Token string `json:"token"`
}

func (e *tokenEndpoints) list(w http.ResponseWriter, _ *http.Request) { reply(w, e.tokens.List()) }

func (e *tokenEndpoints) create(w http.ResponseWriter, r *http.Request) {
	var want newToken
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&want); err != nil {
		http.Error(w, "the body is not {\"name\": …, \"role\": …}", http.StatusBadRequest)
		return
	}
	token, err := e.tokens.Create(want.Name, want.Role, time.Now())
	if err != nil {
		e.fail(w, "create a token", err)
		return
	}
	e.log.Info("token created", "name", want.Name, "role", want.Role, "by", userName(r))
	reply(w, newTokenAnswer{token})
}

func (e *tokenEndpoints) delete(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := e.tokens.Delete(name); err != nil {
		e.fail(w, "delete a token", err)
		return
	}
	e.log.Info("token deleted", "name", name, "by", userName(r))
	reply(w, struct{}{})
}

func (e *tokenEndpoints) fail(w http.ResponseWriter, what string, err error) {
	var mistake access.UserError
	if errors.As(err, &mistake) {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e.log.Error(what, "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and delete the tokens that open the server",
		Long: `Make, list and delete the tokens that open the server. The server keeps only
their hashes. A token counts, or no longer counts, at once.

An admin may do everything, a viewer reads everything but Secrets, and a node
does what its agent needs; the name of its token is that of the node.`,
		Example: `  berth token create ann --role viewer
  berth token list
  berth token delete ann`,
	}
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenDeleteCommand())
	return cmd
}

func tokenCreateCommand() *cobra.Command {
	var c connection
	var role string
	cmd := &cobra.Command{
		Use:   "create NAME --role admin|viewer|node",
		Short: "Make a token and print it; it cannot be shown again",
		Example: `  berth token create ann --role viewer
  berth token create worker-1 --role node`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			token, err := r.createToken(cmd.Context(), args[0], role)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().StringVar(&role, "role", string(access.Viewer), "what the token opens: admin, viewer or node")
	return cmd
}

func tokenListCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens by name",
		Example: "  berth token list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			response, err := r.call(cmd.Context(), http.MethodGet, "/berth/v1/tokens", nil, nil)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			var tokens []access.TokenInfo
			if err := json.NewDecoder(response.Body).Decode(&tokens); err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			return printTokens(cmd.OutOrStdout(), tokens, time.Now())
		},
	}
	c.register(cmd.Flags())
	return cmd
}

func printTokens(out io.Writer, tokens []access.TokenInfo, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tAGE")
	for _, t := range tokens {
		age := "from the start"
		if !t.Created.IsZero() {
			age = duration.HumanDuration(now.Sub(t.Created))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", t.Name, t.Role, age)
	}
	return w.Flush()
}

func tokenDeleteCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a token: it opens nothing from now on",
		Example: "  berth token delete ann",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			response, err := r.call(cmd.Context(), http.MethodDelete, "/berth/v1/tokens/"+url.PathEscape(args[0]), nil, nil)
			if err != nil {
				return err
			}
			response.Body.Close()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "token %s deleted\n", args[0])
			return err
		},
	}
	c.register(cmd.Flags())
	return cmd
}

// createToken makes a token on the server.
func (r *remote) createToken(ctx context.Context, name, role string) (string, error) {
	body, err := json.Marshal(newToken{Name: name, Role: access.Role(role)})
	if err != nil {
		return "", err
	}
	var answer newTokenAnswer
	if err := r.post(ctx, "/berth/v1/tokens", bytes.NewReader(body), &answer); err != nil {
		return "", err
	}
	return answer.Token, nil
}
