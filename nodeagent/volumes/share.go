package volumes

import (
	"io/fs"
	"os"
	"path"
	"syscall"
)

func owned(info fs.FileInfo, group int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Gid) == group
}

// share gives a folder and what is in it to a group, which may read and write
// it. The folder itself comes last, so that an interrupted walk begins anew.
// Links are left alone, and none leads out of the root.
func share(root *os.Root, name string, group int) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := dir.Close(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		switch {
		case e.IsDir():
			err = share(root, child, group)
		case e.Type().IsRegular():
			err = give(root, child, group, 0o660)
		default:
			err = root.Lchown(child, -1, group)
		}
		if err != nil {
			return err
		}
	}
	return give(root, name, group, 0o770|os.ModeSetgid)
}

func give(root *os.Root, name string, group int, mode os.FileMode) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if err := root.Lchown(name, -1, group); err != nil {
		return err
	}
	return root.Chmod(name, info.Mode().Perm()|mode)
}
