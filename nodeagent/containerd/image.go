package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth.dev/berth/nodeagent/pods"
)

// normal is the full form of a reference: docker.io/library/x:latest for x.
func normal(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image reference %q is not valid: %w", ref, err)
	}
	return named.String(), nil
}

// Image implements pods.Images.
func (r *Runtime) Image(ctx context.Context, ref string) (pods.Image, error) {
	name, err := normal(ref)
	if err != nil {
		return pods.Image{}, err
	}
	image, err := r.client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return pods.Image{}, pods.ErrNoImage
	}
	if err != nil {
		return pods.Image{}, fmt.Errorf("find image %s: %w", name, err)
	}
	return r.describe(ctx, image)
}

// describe reads an image's configuration once.
func (r *Runtime) describe(ctx context.Context, image containerd.Image) (pods.Image, error) {
	digest := image.Target().Digest.String()
	r.mu.Lock()
	known, ok := r.images[digest]
	r.mu.Unlock()
	if ok {
		known.Name = image.Name()
		return known, nil
	}
	desc, err := image.Config(ctx)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return pods.Image{}, pods.ErrNoImage // only a part of it is here
		}
		return pods.Image{}, fmt.Errorf("read image %s: %w", image.Name(), err)
	}
	data, err := content.ReadBlob(ctx, image.ContentStore(), desc)
	if err != nil {
		return pods.Image{}, fmt.Errorf("read image %s: %w", image.Name(), err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return pods.Image{}, fmt.Errorf("read image %s: %w", image.Name(), err)
	}
	if unpacked, err := image.IsUnpacked(ctx, snapshotter); err != nil || !unpacked {
		if err := image.Unpack(ctx, snapshotter); err != nil {
			return pods.Image{}, fmt.Errorf("unpack image %s: %w", image.Name(), err)
		}
	}
	size, err := image.Size(ctx)
	if err != nil {
		size = 0
	}
	out := pods.Image{
		Name: image.Name(), ID: desc.Digest.String(), Digest: digest,
		Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
		WorkingDir: config.Config.WorkingDir, User: config.Config.User, StopSignal: config.Config.StopSignal,
		SizeBytes: size,
	}
	r.mu.Lock()
	r.images[digest] = out
	r.mu.Unlock()
	return out, nil
}

// Pull implements pods.Images.
func (r *Runtime) Pull(ctx context.Context, ref string, auth []pods.Credential) (pods.Image, error) {
	name, err := normal(ref)
	if err != nil {
		return pods.Image{}, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithPlainHTTP(loopback),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(host string) (string, string, error) {
			for _, c := range auth {
				if c.Registry == host || (c.Registry == "docker.io" && host == "registry-1.docker.io") {
					return c.Username, c.Password, nil
				}
			}
			return "", "", nil
		}))),
	)})
	image, err := r.client.Pull(ctx, name, containerd.WithResolver(resolver), containerd.WithPullUnpack, containerd.WithPullSnapshotter(snapshotter))
	if err != nil {
		return pods.Image{}, err
	}
	return r.describe(ctx, image)
}

// loopback allows plain HTTP on this machine alone.
func loopback(host string) (bool, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return ip != nil && ip.IsLoopback(), nil
}

// Load imports an OCI or docker archive and returns the names of its images.
func (r *Runtime) Load(ctx context.Context, in io.Reader) ([]string, error) {
	imported, err := r.client.Import(ctx, in, containerd.WithImportPlatform(platforms.Default()))
	if err != nil {
		return nil, fmt.Errorf("import the archive: %w", err)
	}
	var names []string
	for _, img := range imported {
		name, err := normal(img.Name)
		if err != nil || strings.HasPrefix(img.Name, "import-") {
			continue
		}
		if name != img.Name {
			if err := r.rename(ctx, img, name); err != nil {
				return nil, err
			}
		}
		image := containerd.NewImage(r.client, images.Image{Name: name, Target: img.Target})
		if _, err := r.describe(ctx, image); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, errors.New("the archive holds no image with a name: write one with `docker save NAME`, or with the annotation org.opencontainers.image.ref.name")
	}
	sort.Strings(names)
	return names, nil
}

// rename stores an image under its full name, over one that was there.
func (r *Runtime) rename(ctx context.Context, img images.Image, name string) error {
	store := r.client.ImageService()
	full := images.Image{Name: name, Target: img.Target, Labels: img.Labels}
	_, err := store.Create(ctx, full)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, full)
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	if err := store.Delete(ctx, img.Name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	return nil
}

// All lists the images of this node, for its Node object.
func (r *Runtime) All(ctx context.Context) ([]pods.Image, error) {
	list, err := r.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []pods.Image
	for _, image := range list {
		described, err := r.describe(ctx, image)
		if err != nil {
			continue
		}
		out = append(out, described)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}
