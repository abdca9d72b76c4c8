package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Work with the images on the nodes",
		Example: "  berth image load shop.tar",
	}
	var c connection
	load := &cobra.Command{
		Use:   "load FILE",
		Short: "Import an OCI or docker archive on the nodes",
		Example: `  berth image load shop.tar
  docker save shop:1 | berth image load -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in io.Reader = cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			var answer struct{ Images []string }
			if err := r.post(cmd.Context(), "/berth/v1/images", in, &answer); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "loaded %s\n", strings.Join(answer.Images, ", "))
			return nil
		},
	}
	c.register(load.Flags())
	cmd.AddCommand(load)
	return cmd
}
